"""dedup_ray.py with two local workers on a planted corpus, against brute force: python test_dedup_ray.py"""

import io
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import zstandard

HERE = Path(__file__).parent


def grams(text):
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}


def main():
    draw = random.Random(7)
    texts = []
    for i in range(120):
        words = [f"w{draw.randrange(5000)}" for _ in range(300)]
        texts.append(" ".join(words))
        for _ in range(i % 4):
            words[draw.randrange(300)] = f"other{draw.randrange(5000)}"
        texts.append(" ".join(words) + ".")
    sets = [grams(text) for text in texts]

    def jaccard(a, b):
        shared = len(sets[a] & sets[b])
        return shared / (len(sets[a]) + len(sets[b]) - shared)

    pairs = [(a, b, jaccard(a, b)) for b in range(len(texts)) for a in range(b) if jaccard(a, b) >= 0.8]
    assert len(pairs) >= 100, len(pairs)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        half = len(texts) // 2
        for name, part in [("a", range(half)), ("b", range(half, len(texts)))]:
            lines = "".join(json.dumps({"id": str(i), "text": texts[i]}) + "\n" for i in part)
            (folder / f"{name}.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
        command = [sys.executable, str(HERE / "dedup_ray.py"), "--input", str(folder / "*.jsonl.zst"), "--output", str(folder / "once")]
        said = json.loads(subprocess.run([*command, "--workers", "2"], check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        kept = []
        for path in sorted((folder / "once").glob("*.zst")):
            reader = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True)
            kept += [int(json.loads(line)["id"]) for line in io.TextIOWrapper(reader, encoding="utf-8")]
    dropped = sorted(set(range(len(texts))) - set(kept))
    assert kept == sorted(kept) and said == {"kept": len(kept), "dropped": len(dropped)}, said
    assert all(any(b == number for _, b, _ in pairs) for number in dropped), "a document was dropped that is like none before it"
    likely = [b for _, b, similarity in pairs if similarity >= 0.9]
    found = sum(b in dropped for b in likely)
    print(f"{len(dropped)} dropped; {found} of {len(likely)} pairs of similarity 0.9 or more found")
    assert found >= 0.98 * len(likely)


if __name__ == "__main__":
    main()
