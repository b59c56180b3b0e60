"""Made-up vectors with a tree over the classes, and the truth beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.ops import unit
from byname.report.schema import NodeReport
from byname.study.subject import Subject
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy

__all__ = ["nodes_of", "subject_of", "world"]


def world(seed: int = 0, K: int = 12, n: int = 30, groups: int = 3) -> tuple[Task, NDArray[Any]]:
    """K classes in groups whose members are alike; texts of some are drawn to the middle.

    Those take the images of others, so that their recall is high and their precision low; the
    others are the other way round.
    """
    rng = np.random.default_rng(seed)
    above = rng.standard_normal((groups, 24))
    group = np.arange(K) % groups
    centre = unit(above[group] + 0.9 * rng.standard_normal((K, 24)))
    pull = np.where(np.arange(K) % 4 == 0, 0.9, 0.1)[:, None]
    W = unit(centre + pull * centre.mean(axis=0) + 0.12 * rng.standard_normal((K, 24)))
    truth = np.repeat(np.arange(K), n)
    X = unit(centre[truth] + 0.2 * rng.standard_normal((n * K, 24)))
    nodes = [Node(f"g{g}", f"group {g}") for g in range(groups)]
    nodes += [Node(f"class {k}", f"class {k}", f"g{group[k]}") for k in range(K)]
    texts = np.stack([W, unit(W + 0.05 * rng.standard_normal(W.shape))])
    task = Task(
        np.asarray(X, np.float32),
        np.asarray(texts, np.float32),
        ("a {}", "one {}"),
        Taxonomy(nodes),
        scale=30.0,
        labels=truth,
    )
    return task, truth


def subject_of(task: Task, recipe: Any = "ensemble") -> Subject:
    """A subject without labels."""
    return Subject.of_task(task, recipe)


def nodes_of(tree: NodeReport) -> dict[str, NodeReport]:
    """All nodes of a tree by their ids."""
    found, waiting = {}, [tree]
    while waiting:
        node = waiting.pop()
        found[node["id"]] = node
        waiting += node["children"]
    return found
