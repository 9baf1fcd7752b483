"""Near duplicates by `mtnlg data dedup`'s rule, where one machine is too small: partitioned jobs over Parquet on Ray Data.

    pip install "ray[data]" pyarrow pandas zstandard
    python dedup_ray.py --input '1-text/*/part-*.jsonl.zst' --output once --workers 2

Input are JSON lines (plain, .gz or .zst) with `id` and `text`, in the order of their names: of a group of near duplicates the first document stays. Stages, each a
folder of Parquet under OUTPUT/stages that is not made again where it is whole:

    documents   number, file, line, shingles (five-word, 64-bit hashes, sorted)
    bands       band hash, number                 20 bands of 13 MinHashes
    edges       two numbers                       pairs of a band whose Jaccard similarity is at least 0.8
    dropped     number                            all but the first of each connected group

The documents that stay are written to OUTPUT/part-N.jsonl.zst, which the next step of `mtnlg data` reads.
"""

import argparse
import glob
import gzip
import hashlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy
import pandas
import ray
import zstandard

WORDS, BANDS, ROWS, JACCARD = 5, 20, 13, 0.8
# A bucket of more documents is compared with its first one alone.
ALL_PAIRS = 64
DRAW = numpy.random.RandomState(1234)
FACTORS = DRAW.randint(0, 2**31, size=BANDS * ROWS, dtype=numpy.int64).astype(numpy.uint64) * numpy.uint64(2) + numpy.uint64(1)
TERMS = DRAW.randint(0, 2**31, size=BANDS * ROWS, dtype=numpy.int64).astype(numpy.uint64)


def lines(path):
    raw = open(path, "rb")
    if path.endswith(".zst"):
        raw = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    elif path.endswith(".gz"):
        raw = gzip.open(raw)
    return io.TextIOWrapper(io.BufferedReader(raw), encoding="utf-8")


def shingles(text):
    words = re.findall(r"\w+", text.lower())
    count = max(len(words) - WORDS + 1, min(len(words), 1))
    grams = {" ".join(words[i : i + WORDS]) for i in range(count)}
    hashes = (hashlib.blake2b(gram.encode(), digest_size=8).digest() for gram in grams)
    return numpy.unique(numpy.frombuffer(b"".join(hashes), dtype=numpy.uint64))


def documents(batch):
    """A file's documents with their numbers: the file's place in the list, then the line."""
    rows = []
    for index, path in zip(batch["index"], batch["path"]):
        for line, text in enumerate(lines(path)):
            if text.strip():
                rows.append({"number": (int(index) << 32) + line, "shingles": shingles(json.loads(text)["text"]).tobytes()})
    return pandas.DataFrame(rows, columns=["number", "shingles"])


def bands(batch):
    rows = []
    for number, packed in zip(batch["number"], batch["shingles"]):
        values = numpy.frombuffer(packed, dtype=numpy.uint64)
        if not len(values):
            continue
        signature = numpy.full(BANDS * ROWS, numpy.iinfo(numpy.uint64).max)
        for block in numpy.array_split(values, len(values) // 1024 + 1):
            signature = numpy.minimum(signature, (block[:, None] * FACTORS + TERMS).min(axis=0))
        for band, part in enumerate(signature.reshape(BANDS, ROWS)):
            key = hashlib.blake2b(bytes([band]) + part.tobytes(), digest_size=8).digest()
            rows.append({"band": int.from_bytes(key, "little", signed=True), "number": number})
    return pandas.DataFrame(rows, columns=["band", "number"])


def candidates(group):
    numbers = numpy.sort(group["number"].to_numpy())
    if len(numbers) > ALL_PAIRS:
        pairs = [(numbers[0], other) for other in numbers[1:]]
    else:
        pairs = [(a, b) for i, a in enumerate(numbers) for b in numbers[i + 1 :]]
    return pandas.DataFrame(pairs, columns=["a", "b"], dtype=numpy.int64)


def similar(batch):
    def is_pair(left, right):
        left, right = (numpy.frombuffer(packed, dtype=numpy.uint64) for packed in (left, right))
        shared = len(numpy.intersect1d(left, right, assume_unique=True))
        return shared >= JACCARD * (len(left) + len(right) - shared)

    return batch[[is_pair(left, right) for left, right in zip(batch["left"], batch["right"])]][["a", "b"]]


def first_of_groups(edges):
    """Label propagation on the edges, which are few: documents that have a near duplicate, and the first of each group."""
    labels = {}

    def find(number):
        while labels.setdefault(number, number) != number:
            labels[number] = labels[labels[number]]
            number = labels[number]
        return number

    for a, b in edges:
        a, b = find(a), find(b)
        if a != b:
            labels[max(a, b)] = min(a, b)
    return sorted(number for number in labels if find(number) != number)


def stage(folder, name, make):
    """The Parquet of a stage, made or found."""
    path = folder / name
    if not (path / "_done").exists():
        shutil.rmtree(path, ignore_errors=True)
        make().write_parquet(str(path))
        path.mkdir(parents=True, exist_ok=True)
        (path / "_done").touch()
    files = sorted(str(file) for file in path.glob("*.parquet"))
    return ray.data.read_parquet(files) if files else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True, nargs="+")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--workers", type=int, default=2, help="processes of a cluster on this machine; ignored with --address")
    parser.add_argument("--address", help="a Ray cluster that runs already")
    args = parser.parse_args()
    paths = sorted({path for pattern in args.input for path in glob.glob(pattern)})
    if not paths:
        raise SystemExit(f"nothing matches {args.input}")
    if args.address:
        ray.init(address=args.address)
    else:
        ray.init(num_cpus=args.workers, include_dashboard=False)
    stages = args.output / "stages"
    stages.mkdir(parents=True, exist_ok=True)

    files = pandas.DataFrame({"index": range(len(paths)), "path": paths})
    table = stage(
        stages,
        "documents",
        lambda: ray.data.from_pandas(files)
        .repartition(min(len(paths), 64))
        .map_batches(documents, batch_format="pandas", batch_size=1),
    )
    banded = stage(stages, "bands", lambda: table.map_batches(bands, batch_format="pandas"))

    def edges():
        pairs = banded.groupby("band").map_groups(candidates, batch_format="pandas")
        unique = pairs.groupby(["a", "b"]).count().select_columns(["a", "b"])
        partitions = max(args.workers, 2)
        left = table.rename_columns({"number": "a", "shingles": "left"})
        right = table.rename_columns({"number": "b", "shingles": "right"})
        joined = unique.join(left, join_type="inner", num_partitions=partitions, on=("a",))
        joined = joined.join(right, join_type="inner", num_partitions=partitions, on=("b",))
        return joined.map_batches(similar, batch_format="pandas")

    found = stage(stages, "edges", edges)
    pairs = found.to_pandas()[["a", "b"]].itertuples(index=False, name=None) if found else []
    dropped = set(first_of_groups(pairs))
    kept = 0
    for index, path in enumerate(paths):
        with zstandard.open(args.output / f"part-{index:05}.jsonl.zst", "wt", encoding="utf-8") as out:
            for line, text in enumerate(lines(path)):
                if text.strip() and (index << 32) + line not in dropped:
                    out.write(text if text.endswith("\n") else text + "\n")
                    kept += 1
    print(json.dumps({"kept": kept, "dropped": len(dropped)}))


if __name__ == "__main__":
    main()
