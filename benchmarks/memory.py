"""Peak memory of ``byname embed`` on 1,000 and on 100,000 images, side by side.

    python benchmarks/memory.py [--images 100000] [--files 300]

The images are links to a few hundred JPEGs; ``--no-cache`` makes byname encode each of them,
which its run record counts. The encoder is a tower of random weights small enough that nothing but
byname itself takes memory. Each run is a process of its own; its peak is what the system says when
it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, DIM, WORDS = 32, 64, ["<pad>", "a", "photo", "</s>"]


def encoder(folder: Path) -> Path:
    """An encoder folder: mean of pixels and sum of word vectors through random matrices."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    rng, info = np.random.default_rng(0), helper.make_tensor_value_info
    folder.mkdir()

    def save(
        name: str, nodes: list[onnx.NodeProto], given: onnx.ValueInfoProto, **values: object
    ) -> None:
        constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in values.items()]
        outputs = [info("embedding", TensorProto.FLOAT, ["batch", DIM])]
        graph = helper.make_graph(nodes, name, [given], outputs, constants)
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / name)

    make = helper.make_node
    save(
        "visual.onnx",
        [
            make("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
            make("Flatten", ["x"], ["flat"]),
            make("MatMul", ["flat", "w"], ["embedding"]),
        ],
        info("pixels", TensorProto.UINT8, ["batch", SIZE, SIZE, 3]),
        w=rng.normal(size=(SIZE * SIZE * 3, DIM)).astype(np.float32),
    )
    save(
        "textual.onnx",
        [
            make("Gather", ["table", "input_ids"], ["e"]),
            make("ReduceSum", ["e", "axis"], ["embedding"], keepdims=0),
        ],
        info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        table=rng.normal(size=(len(WORDS), DIM)).astype(np.float32),
        axis=np.array([1], np.int64),
    )
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    card = {"size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3, "context_length": 8, "causal": False}
    (folder / "preprocess.json").write_text(json.dumps(card))
    return folder


def photos(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    rng, paths = np.random.default_rng(0), []
    for i in range(count):
        tiles = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        paths.append(folder / f"{i:04d}.jpg")
        Image.fromarray(tiles).resize((160, 120), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def linked(folder: Path, files: list[Path], count: int) -> Path:
    for i in range(count):
        place = folder / f"{i // 1000:04d}"
        if i % 1000 == 0:
            place.mkdir(parents=True)
        (place / f"{i:06d}.jpg").symlink_to(files[i % len(files)])
    return folder


def peak(images: Path, model: Path, place: Path) -> tuple[float, float, int]:
    """MB, seconds, and how many images were encoded."""
    out, start = place / f"{images.name}.parquet", time.perf_counter()
    command = [sys.executable, "-m", "byname", "embed", images, "-e", f"onnx:{model}"]
    command += ["-o", out, "--no-cache", "--quiet"]
    process = subprocess.Popen(
        [str(x) for x in command], env=os.environ | {"BYNAME_CACHE": str(place / "cache")}
    )
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, f"byname embed ended with {status}"
    record = json.loads(Path(f"{out}.run.json").read_text())
    unit = 1 if sys.platform == "darwin" else 1024
    return used.ru_maxrss * unit / 1e6, time.perf_counter() - start, record["counts"]["encoded"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=300)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model, files = encoder(place / "encoder"), photos(place / "files", args.files)
        for count in (1000, args.images):
            images = linked(place / f"images-{count}", files, count)
            rows.append((count, *peak(images, model, place)))
    print("| images | encoded | peak MB | seconds |\n|---|---|---|---|")
    for count, megabytes, seconds, encoded in rows:
        assert encoded == count
        print(f"| {count:,} | {encoded:,} | {megabytes:.0f} | {seconds:.1f} |")
    print(f"\nratio of peaks: {rows[1][1] / rows[0][1]:.2f} (wanted: <= 1.5)")


if __name__ == "__main__":
    main()
