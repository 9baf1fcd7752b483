"""Near duplicates by `mtnlg data dedup`'s rule, where one machine is too small: partitioned jobs over Parquet on Ray.

    pip install ray pyarrow zstandard
    python dedup_ray.py --input '1-text/*/part-*.jsonl.zst' --output once --workers 2

Input are JSON lines (plain, .gz or .zst) with `id` and `text`, in the order of their names: of a group of near duplicates the first document stays. Stages, each a
folder of Parquet under OUTPUT/stages on a disk that all workers see; a file that is there is not made again:

    documents/F       number, shingles            one job an input file: five-word shingles, as sorted 64-bit hashes
    bands/P/F         band hash, number           20 bands of 13 MinHashes, partitioned by their hash
    edges/P           two numbers                 one job a partition: pairs that meet in a band and whose Jaccard similarity is at least 0.8

The documents that stay are written to OUTPUT/part-N.jsonl.zst, which the next step of `mtnlg data` reads.
"""

import argparse
import functools
import glob
import gzip
import hashlib
import io
import itertools
import json
import os
import re
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
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


def write(path, columns):
    """A Parquet file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    pyarrow.parquet.write_table(pyarrow.table(columns), aside)
    aside.rename(path)


def bands(values):
    signature = numpy.full(BANDS * ROWS, numpy.iinfo(numpy.uint64).max)
    for block in numpy.array_split(values, len(values) // 1024 + 1):
        signature = numpy.minimum(signature, (block[:, None] * FACTORS + TERMS).min(axis=0))
    for band, part in enumerate(signature.reshape(BANDS, ROWS)):
        yield int.from_bytes(hashlib.blake2b(bytes([band]) + part.tobytes(), digest_size=8).digest(), "little")


@ray.remote
def read(stages, index, path, partitions):
    """A file's documents, numbered by the file's place in the list and the line, and where their bands lead."""
    done = stages / "documents" / f"{index}.parquet"
    if done.exists():
        return
    numbers, packed, parts = [], [], [([], []) for _ in range(partitions)]
    for line, text in enumerate(lines(path)):
        values = shingles(json.loads(text)["text"]) if text.strip() else ()
        if len(values):
            number = (index << 32) + line
            numbers.append(number)
            packed.append(values.tobytes())
            for key in bands(values):
                keys, holders = parts[key % partitions]
                keys.append(key)
                holders.append(number)
    for part, (keys, holders) in enumerate(parts):
        columns = {"band": pyarrow.array(keys, pyarrow.uint64()), "number": pyarrow.array(holders, pyarrow.int64())}
        write(stages / "bands" / str(part) / f"{index}.parquet", columns)
    write(done, {"number": pyarrow.array(numbers, pyarrow.int64()), "shingles": pyarrow.array(packed, pyarrow.binary())})


@ray.remote
def compare(stages, part, files):
    """The verified pairs of a partition."""
    done = stages / "edges" / f"{part}.parquet"
    if done.exists():
        return

    @functools.lru_cache(maxsize=16)
    def shingles_of(index):
        table = pyarrow.parquet.read_table(stages / "documents" / f"{index}.parquet")
        return dict(zip(table["number"].to_pylist(), table["shingles"]))

    def similar(pair):
        left, right = (numpy.frombuffer(shingles_of(number >> 32)[number].as_py(), dtype=numpy.uint64) for number in pair)
        shared = len(numpy.intersect1d(left, right, assume_unique=True))
        return shared >= JACCARD * (len(left) + len(right) - shared)

    tables = [pyarrow.parquet.read_table(stages / "bands" / str(part) / f"{index}.parquet") for index in range(files)]
    keys = numpy.concatenate([table["band"].to_numpy() for table in tables])
    numbers = numpy.concatenate([table["number"].to_numpy() for table in tables])
    order = numpy.lexsort((numbers, keys))
    pairs = set()
    for _, group in itertools.groupby(order, key=lambda at: keys[at]):
        bucket = [int(numbers[at]) for at in group]
        crowd = len(bucket) > ALL_PAIRS
        pairs.update(zip(itertools.repeat(bucket[0]), bucket[1:]) if crowd else itertools.combinations(bucket, 2))
    found = [pair for pair in sorted(pairs) if similar(pair)]
    write(done, {name: pyarrow.array([pair[i] for pair in found], pyarrow.int64()) for i, name in enumerate("ab")})


def first_of_groups(edges):
    """All but the first document of each group that pairs connect. They are few: only documents that have a near duplicate."""
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True, nargs="+")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--workers", type=int, default=2, help="processes of a cluster on this machine; ignored with --address")
    parser.add_argument("--partitions", type=int, default=8, help="jobs that compare; the same in every run over an output")
    parser.add_argument("--address", help="a Ray cluster that runs already")
    args = parser.parse_args()
    paths = sorted({path for pattern in args.input for path in glob.glob(pattern)})
    if not paths:
        raise SystemExit(f"nothing matches {args.input}")
    if args.address:
        ray.init(address=args.address)
    else:
        ray.init(num_cpus=args.workers, include_dashboard=False)
    stages = (args.output / "stages").resolve()
    ray.get([read.remote(stages, index, str(Path(path).resolve()), args.partitions) for index, path in enumerate(paths)])
    ray.get([compare.remote(stages, part, len(paths)) for part in range(args.partitions)])
    pairs = []
    for part in range(args.partitions):
        table = pyarrow.parquet.read_table(stages / "edges" / f"{part}.parquet")
        pairs += zip(table["a"].to_pylist(), table["b"].to_pylist())
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
