"""Build haprompts.json and coder.json from the handwritten sentences in texts/.

    python make_prompts.py CLASSES.csv [FOLDER]

Comparisons with siblings and descriptions are whole sentences of texts/. A comparison with a node
higher up in the tree is composed of two handwritten phrases, one of the class and one of the node.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from byname.errors import TaxonomyError
from byname.prompts.haprompts import HAPrompts
from byname.promptset import Pair, Prompt, PromptSet, Provenance
from byname.queries import Query
from byname.taxonomy import Node, Taxonomy
from byname.taxonomy_io import read_taxonomy

TEXTS = Path(__file__).parent / "texts"
MODEL = "written by a language model for this project"
DATE = "2026-11-22"
PLURAL = {"Satsumas", "Carrots", "Vegetables", "Packages"}
PATH_ORDER = ("path_look", "path_picture", "path_traits")
FRAMES: tuple[Callable[[str, str, str, str], str], ...] = (
    lambda x, y, p, q: f"{x} {_has(x)} {p}, whereas {y} {_has(y)} {q}.",
    lambda x, y, p, q: f"Unlike {y} with {q}, {x} {_shows(x)} {p}.",
    lambda x, y, p, q: f"{_capital(p)}: a sign of {x}, while {y} would show {q}.",
    lambda x, y, p, q: f"In a photo, {x} can be told from {y} by {p} instead of {q}.",
    lambda x, y, p, q: f"Where {y} would have {q}, {x} {_has(x)} {p}.",
    lambda x, y, p, q: f"One sees {p} on {x}, and not {q} as on {y}.",
)


def _has(name: str) -> str:
    return "have" if name in PLURAL else "has"


def _shows(name: str) -> str:
    return "show" if name in PLURAL else "shows"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def read_sections(path: Path) -> dict[str, list[str]]:
    """Lines of each "# title" of a file."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines())):
        if line.startswith("# "):
            title = line[2:]
            if title in found:
                raise SystemExit(f"{path.name}: {title!r} comes twice")
            found[title] = []
        else:
            found[title].append(line)
    return found


def marked(lines: list[str], mark: str) -> list[str]:
    """The lines that begin with a mark, without it."""
    return [line[2:] for line in lines if line.startswith(f"{mark} ")]


class Answers:
    """What is said to each query."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.path: dict[str, list[str]] = {}
        for file in sorted(TEXTS.glob("path_*.txt")):
            self.path |= read_sections(file)
        self.siblings = {
            name: dict(line[2:].split(": ", 1) for line in lines)
            for name, lines in read_sections(TEXTS / "siblings.txt").items()
        }
        self.phrases = read_sections(TEXTS / "phrases.txt")
        self.peers = {
            name: marked(lines, "-") for name, lines in read_sections(TEXTS / "peers.txt").items()
        }
        # Counted over all classes, and for each class from another start, so that the frames and
        # phrases spread evenly.
        self.turn = {node.id: 2 * i for i, node in enumerate(taxonomy.classes)}

    def reply(self, query: Query) -> str:
        """The answer to one query."""
        leaf = self.taxonomy.node(query.class_id)
        about = self.taxonomy.node(query.about)
        if query.kind == "leaf_peer":
            return self.siblings[leaf.name][about.name]
        if query.kind == "ancestor_peer":
            return self._compose(leaf, about)
        place = self.taxonomy.ancestors(leaf.id).index(about.id)
        return self.path[leaf.name][len(PATH_ORDER) * place + PATH_ORDER.index(query.kind)]

    def _compose(self, leaf: Node, about: Node) -> str:
        turn = self.turn[leaf.id]
        self.turn[leaf.id] += 1
        own = marked(self.phrases[leaf.name], "-")
        other = self.peers[about.name]
        frame = FRAMES[turn % len(FRAMES)]
        phrase = own[turn % len(own)]
        return frame(leaf.name, about.name, phrase, other[(turn // 2) % len(other)])


def provenance(generator: str) -> dict[str, str]:
    return {"generator": generator, "model": MODEL, "date": DATE}


def haprompts(taxonomy: Taxonomy) -> PromptSet:
    """The answers to every query of the variant full."""
    member = HAPrompts(variant="full")
    answers = Answers(taxonomy)
    made = member.collect(taxonomy, [(q, answers.reply(q)) for q in member.queries(taxonomy)])
    record = made.provenance.model_copy(update=provenance("haprompts[variant=full]"))
    return made.model_copy(update={"provenance": record})


def coder(taxonomy: Taxonomy) -> PromptSet:
    """Names, attributes, look-alikes, synonyms and one-to-one contrasts."""
    answers = Answers(taxonomy)
    classes = {}
    for leaf in taxonomy.classes:
        name, lines = leaf.name, answers.phrases[leaf.name]
        made = [Prompt(text=f"a photo of {name}.", kind="name")]
        for item in marked(lines, "-"):
            text = f"a photo of {name}, recognisable by {item}."
            made.append(Prompt(text=text, kind="attribute", about=item))
        for item in marked(lines, "~"):
            text = f"a photo of {name}, which looks like {item}."
            text = text.replace("which looks", "which look") if name in PLURAL else text
            made.append(Prompt(text=text, kind="analogous", about=item))
        for item in marked(lines, "="):
            made.append(Prompt(text=f"a photo of {item}.", kind="synonym", about=item))
        classes[leaf.id] = tuple(made)
    pairs = (*_sibling_pairs(taxonomy, answers), *_cross_pairs(taxonomy))
    record = Provenance.model_validate(provenance("handwritten texts for coder"))
    return PromptSet(classes=classes, pairs=pairs, provenance=record)


def _sibling_pairs(taxonomy: Taxonomy, answers: Answers) -> Iterator[Pair]:
    known = {leaf.id: leaf.name for leaf in taxonomy.classes}
    for leaf in taxonomy.classes:
        own = marked(answers.phrases[leaf.name], "-")[0]
        for peer in filter(known.__contains__, taxonomy.siblings(leaf.id)):
            other = known[peer]
            short = f"a photo of {leaf.name} and not of {other}, because of {own}."
            yield Pair(a=leaf.id, b=peer, texts=(answers.siblings[leaf.name][other], short))


def _cross_pairs(taxonomy: Taxonomy) -> Iterator[Pair]:
    ids = {leaf.name: leaf.id for leaf in taxonomy.classes}
    for title, lines in read_sections(TEXTS / "cross.txt").items():
        a, b = (ids[name] for name in title.split(" / "))
        for first, second, side in ((a, b, "a"), (b, a, "b")):
            texts = tuple(f"{line[3:]}." for line in lines if line.startswith(f"{side}: "))
            yield Pair(a=first, b=second, texts=texts)


def main() -> None:
    """Write both files."""
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: python make_prompts.py CLASSES.csv [FOLDER]")
    folder = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent
    if not folder.is_dir():
        sys.exit(f"cannot write to '{folder}': there is no such folder. Make it first.")
    try:
        taxonomy = read_taxonomy(Path(sys.argv[1]))
    except TaxonomyError as error:
        sys.exit(str(error))
    for name, made in (("haprompts", haprompts(taxonomy)), ("coder", coder(taxonomy))):
        made.save(folder / f"{name}.json")
        print(f"{name}.json: {made.summary()['texts']} texts, {len(made.pairs)} pairs")


if __name__ == "__main__":
    main()
