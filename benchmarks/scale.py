"""A million stored vectors through the stages that look at all of them: seconds, memory, exponent.

Made-up images and texts of 100 classes (as in ``synthetic.py``, but drawn block by block), width
512, are written as a merged file or as the parts of a run, and then each stage runs in a process of
its own: ensemble and cpe to rows, transclip (in groups), diagnose, and the whole report of
``byname diagnose``. The texts are vectors too, handed over as ``ClassTexts``, or for the report by
an encoder of ready vectors, so that what is measured is what comes after the images are embedded.
The exponent is that of CPU seconds over N, both without the first 140,000 images, which hold the
start of the process and the sample that diagnose looks at however many there are. CPU seconds,
since those of the clock are others' on a machine that is shared.

    python benchmarks/scale.py                                  # 250k, 500k, 1M; writes 1 GB
    python benchmarks/scale.py --stages ensemble,diagnose --sizes 100000,200000
    python benchmarks/scale.py --format run                     # parts of a run folder
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from byname.answers import answer_tables
from byname.classifier import Classifier
from byname.commands_study import STUDIED
from byname.diagnose import diagnose
from byname.embeddings import FORMAT, Embeddings, vector_array
from byname.encoders import PrecomputedEncoder
from byname.ops import unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.report.data import make_report
from byname.rows import write_rows
from byname.stage import Batch, ClassTexts
from byname.study.subject import Subject
from byname.taxonomy import Taxonomy

K, D, P = 100, 512, 20
SHARD = 4096
TEMPLATES = [f"template {p}: {{}}" for p in range(P)]
START = 140_000  # images whose seconds are taken out: more than are held in memory
STAGES = ("ensemble", "cpe", "transclip", "diagnose", "report")


class World:
    """Centres and texts of the classes; images as many as wanted."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.spectrum = (1.0 + np.arange(D)) ** -0.4
        self.spectrum[-2:] = 0  # the last two directions are for the gap
        self.spectrum /= np.linalg.norm(self.spectrum)
        self.side = np.zeros((2, D))
        self.side[[0, 1], [-2, -1]] = 1.5
        self.centre = unit(self._noise(rng, K)[rng.integers(0, K // 4, K)] + self._noise(rng, K))
        text = self.centre + 0.6 * self._noise(rng, K)
        spoilt = 0.4 * rng.lognormal(0, 0.5, P)
        own = spoilt[:, None, None] * self._noise(rng, P, K)
        shared = 0.7 * self._noise(rng, P)[:, None]
        self.texts = unit(text + own + shared + self.side[1]).astype(np.float32)
        self.seed = seed

    def _noise(self, rng: np.random.Generator, *shape: int) -> NDArray[Any]:
        return np.asarray(rng.standard_normal((*shape, D), np.float32) * self.spectrum)

    def images(self, n: int) -> Iterator[NDArray[np.float32]]:
        """Vectors of n images, ``SHARD`` at a time; the first are the same for every n."""
        for start in range(0, n, SHARD):
            rng = np.random.default_rng([self.seed, start])
            truth = rng.integers(0, K, SHARD)
            made = self.centre[truth] + self._noise(rng, SHARD) + self.side[0]
            yield unit(made.astype(np.float32))[: n - start]

    def encoder(self) -> PrecomputedEncoder:
        """The same texts by their words."""
        words = [text.replace("{}", f"class {k}") for text in TEMPLATES for k in range(K)]
        return PrecomputedEncoder.from_arrays(words, self.texts.reshape(-1, D))

    def class_texts(self) -> ClassTexts:
        """P templates of K classes."""
        taxonomy = Taxonomy.from_names([f"class {k}" for k in range(K)])
        vectors = self.texts.transpose(1, 0, 2).reshape(K * P, D)
        return ClassTexts(
            vectors, np.repeat(np.arange(K), P), taxonomy, prompt_index=np.tile(np.arange(P), K)
        )


def write_merged(path: Path, n: int) -> None:
    """One file as :meth:`Embeddings.save` writes it, a block at a time."""
    schema = pa.schema(
        [
            ("file_name", pa.string()),
            ("vector", vector_array(np.zeros((0, D))).type),
            ("error", pa.string()),
        ],
        metadata={"byname": json.dumps({"format": FORMAT})},
    )
    how = {"use_dictionary": ["error"], "compression": "NONE"}
    with pq.ParquetWriter(path, schema, **how) as writer:
        for start, X in zip(range(0, n, SHARD), World().images(n), strict=True):
            writer.write_table(pa.table(_columns(start, X), schema=schema))


def write_run(folder: Path, n: int) -> None:
    """The parts of a finished run."""
    folder.mkdir()
    settings = {"encoder": "made up", "fingerprint": "", "dim": D, "shard_size": SHARD}
    plan = {"format": "byname-run/2", "settings": settings, "images": n, "root": ""}
    (folder / "plan.json").write_text(json.dumps(plan))
    for i, X in enumerate(World().images(n)):
        names, vectors, errors = _columns(i * SHARD, X)
        table = {
            "position": np.arange(len(X), dtype=np.int32),
            "file_name": names,
            "content": pa.array([b"0" * 16] * len(X)),
            "vector": vectors,
            "error": errors,
        }
        how = {"use_dictionary": ["error"], "compression": "NONE"}
        pq.write_table(pa.table(table), folder / f"part-{i:05d}.parquet", **how)
        (folder / f"part-{i:05d}.json").write_text("{}")


def _columns(start: int, X: NDArray[np.float32]) -> list[Any]:
    names = [f"folder/{i:09d}.jpg" for i in range(start, start + len(X))]
    return [pa.array(names), vector_array(X), pa.nulls(len(X), pa.string())]


def work(path: Path, stage: str) -> dict[str, Any]:
    """One stage over the stored vectors, in this process."""
    start = time.perf_counter()
    texts, embeddings = World().class_texts(), Embeddings.load(path)
    batch = Batch(embeddings.vectors)
    if stage == "diagnose":
        made = diagnose(texts, batch, "ensemble")
        said = f"expected {made.expected_accuracy:.3f}"
    elif stage == "report":
        model = Classifier(texts.taxonomy, World().encoder(), "ensemble", templates=TEMPLATES)
        report = make_report(Subject.of_classifier(model, embeddings, most=STUDIED))
        said = f"expected {report['expected_accuracy']:.3f}, {len(report['findings'])} findings"
    else:
        pipeline = Pipeline(get_recipe(stage)).fit(texts, batch)
        output = path.with_name("rows.parquet")
        write_rows(answer_tables(pipeline, embeddings, batch=batch), output, {})
        said = f"{pq.read_metadata(output).num_rows} rows"
    kind, seconds = type(embeddings.vectors).__name__, time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
    return {"seconds": seconds, "cpu": cpu, "peak_gb": peak, "said": said, "kind": kind}


def measured(folder: Path, kind: str, n: int, stages: list[str]) -> dict[str, dict[str, Any]]:
    """Each stage over n images, in a process of its own."""
    path = folder / ("run" if kind == "run" else "merged.parquet")
    (write_run if kind == "run" else write_merged)(path, n)
    found = {}
    for stage in stages:
        words = [sys.executable, __file__, "--worker", stage, "--path", str(path)]
        told = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        found[stage] = json.loads(told.stdout)
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        file.unlink()
    if path.is_dir():
        path.rmdir()
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="250000,500000,1000000")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--format", choices=["merged", "run"], default="merged")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    parser.add_argument("--worker", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(work(given.path, given.worker)))
        return
    sizes, stages = [int(n) for n in given.sizes.split(",")], given.stages.split(",")
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        base = measured(Path(made), given.format, START, stages)
        found = {}
        print(f"{'stage':10} {'N':>9} {'seconds':>8} {'CPU s':>8} {'peak GB':>8}  vectors")
        for n in sizes:
            found[n] = measured(Path(made), given.format, n, stages)
            for stage, one in found[n].items():
                told = f"{one['seconds']:8.1f} {one['cpu']:8.1f} {one['peak_gb']:8.2f}  "
                told += f"{one['kind']}, {one['said']}"
                print(f"{stage:10} {n:9,} {told}", flush=True)
    for stage in stages:
        net = [found[n][stage]["cpu"] - base[stage]["cpu"] for n in sizes]
        more = [n - START for n in sizes]
        line = f"{stage:10} start {base[stage]['cpu']:.1f} CPU s"
        if len(sizes) > 1:
            line += f", exponent {np.polyfit(np.log(more), np.log(net), 1)[0]:.3f}"
        print(line)


if __name__ == "__main__":
    main()
