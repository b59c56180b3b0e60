"""Who imports whom, how long things are, and what never happens at import: read from the source."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "byname"
STAGES = {"prompts", "weigh", "score", "refine", "decide"}
MODELS = {"encoders", "images", "llm"}
# From the bottom to the top; a module imports its own layer and those below.
LAYERS: tuple[set[str], ...] = (
    {"errors", "files", "ops", "margins", "knn", "kmeans", "stream", "estimator", "progress"}
    | {"stored", "spilled"},
    {"taxonomy", "taxonomy_nodes", "promptset", "sentences", "flow", "stage", "queries", "cache"}
    | {"taxonomy_vectors"}
    | {"metrics", "calibration", "bootstrap"},
    {
        "taxonomy_io",
        "taxonomy_formats",
        "taxonomy_tables",
        "names",
        "joins",
        "npz",
        "promptset_io",
        "promptset_formats",
        "promptset_export",
        "promptpage",
        "promptcheck",
        "promptcheck_names",
        "promptcheck_texts",
        "moderation",
        "embeddings",
        "classtexts",
        "taskfile",
        "taskextra",
    },
    MODELS | STAGES,
    {"runs"},
    {
        "recipe",
        "recipe_table",
        "recipes",
        "plugins",
        "groups",
        "pipeline",
        "promptchoice",
        "wordnet",
        "advice",
        "expectation",
        "adapters",
    },
    {"rows", "bars", "console", "inputs", "answers"}
    | {"wrapped", "textvectors", "gathered", "extrafiles", "extra"},
    {"classifier", "diagnose", "explain", "programs", "demo"},
    {"study"},
    {"labels", "scoring", "evaluate", "controls", "report"},
    {
        "commands",
        "commands_classify",
        "asking",
        "commands_prompts",
        "commands_promptfiles",
        "commands_evaluate",
        "commands_export",
        "commands_study",
        "commands_explain",
        "commands_controls",
        "commands_discover",
        "commands_fewshot",
        "commands_repair",
        "commands_runs",
        "doctor",
        "provenance",
        "sorter",
    },
    {
        "serve",
        "commands_serve",
        "cli",
        "cli_serve",
        "cli_options",
        "cli_llm_options",
        "cli_prompts",
        "cli_promptfiles",
        "cli_evaluate",
        "cli_export",
        "cli_study",
        "cli_explain",
        "cli_controls",
        "cli_discover",
        "cli_fewshot",
        "cli_repair",
        "cli_runs",
    },
)
LAYER = {room: i for i, layer in enumerate(LAYERS) for room in layer}
FOR_STAGES = {
    "errors",
    "ops",
    "kmeans",
    "knn",
    "stream",
    "margins",
    "taxonomy",
    "taxonomy_vectors",
    "promptset",
    "sentences",
    "stage",
    "queries",
    "progress",
}
NOT_FOR = {
    "ops": set(LAYER) - {"errors", "ops"},
    "stream": set(LAYER) - {"errors", "ops", "stream"},
    "files": set(LAYER) - {"errors", "files"},
    "encoders": STAGES | {"llm"},
    "images": STAGES | {"llm", "encoders"},
    "llm": STAGES | {"images", "encoders"},
    "runs": STAGES,
    "recipes": MODELS | {"runs"},
    "pipeline": MODELS | {"runs"},
} | {stage: set(LAYER) - FOR_STAGES - {stage} for stage in STAGES}
TORCH = {"torch", "torchvision", "open_clip", "timm", "transformers", "tensorflow", "jax"}
FILES = sorted(p for p in PACKAGE.rglob("*.py"))
NAMES = [p.relative_to(PACKAGE).as_posix() for p in FILES]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(path)))


def room(path: Path) -> str:
    """The name right under ``byname`` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imported(path: Path) -> frozenset[str]:
    """Full names of all modules that a file imports, at its top, inside functions, or for types."""
    here = ["byname", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            # "from byname import ops" names a module in its list; others name what is in one.
            bare = module == "byname"
            found |= {f"byname.{a.name}" for a in node.names} if bare else {module}
    return frozenset(found)


def rooms_imported(path: Path) -> set[str]:
    return {n.split(".")[1] for n in imported(path) if n.startswith("byname.")} - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_arrows(path: Path) -> None:
    own = room(path)
    if own in {"__init__", "__main__"}:
        return
    assert own in LAYER, f"give '{own}' a layer in this file, and in docs/architecture.md"
    for other in rooms_imported(path):
        assert other in LAYER, f"{path.name} imports byname.{other}, which has no layer"
        assert LAYER[other] <= LAYER[own], f"{own} may not import {other}, which is above it"
        assert other not in NOT_FOR.get(own, set()), f"{own} may not import {other}"


def test_encoders_know_of_images_only_the_preprocessing() -> None:
    for path in FILES:
        if room(path) == "encoders":
            known = {n for n in imported(path) if n.startswith("byname.images")}
            assert known <= {"byname.images.preprocess"}, path.name


def test_labels_cannot_reach_a_prediction() -> None:
    """Metrics take labels; nothing on the way to a prediction may know them."""
    for path in FILES:
        if LAYER.get(room(path), 99) <= LAYER["pipeline"] or room(path) == "classifier":
            assert not rooms_imported(path) & {"evaluate", "scoring", "labels"}, path.name
            scores = {"metrics", "calibration", "bootstrap"}
            assert not rooms_imported(path) & scores or room(path) in scores, path.name


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_torch_is_never_imported_with_a_module(path: Path) -> None:
    inside = {
        id(inner)
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in nodes(path):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in inside:
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names]
            assert not {m.split(".")[0] for m in modules} & TORCH, f"{path.name}:{node.lineno}"


def test_ops_never_imports_torch_at_all() -> None:
    assert not {name.split(".")[0] for name in imported(PACKAGE / "ops.py")} & TORCH


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    for node in nodes(path):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {"eval", "exec", "pickle.load", "pickle.loads"}, node.lineno
            for keyword in node.keywords:
                allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                assert keyword.arg != "allow_pickle" or allowed, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_sizes(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"


def test_every_room_says_what_it_is_for() -> None:
    for path in FILES:
        text = ast.get_docstring(tree(path))
        assert text, f"{path.relative_to(PACKAGE)} has no docstring"


def test_the_package_exports_few_names() -> None:
    import byname

    names = getattr(byname, "__all__", None) or [n for n in vars(byname) if not n.startswith("_")]
    assert len(names) <= 15
    assert all(hasattr(byname, name) for name in names)
