from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from byname.errors import NeedsError
from byname.stage import create
from byname.taxonomy import Node, Taxonomy
from byname.wordnet import wordnet_lookup

LEXICON = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.0.dtd">
<LexicalResource xmlns:dc="http://purl.org/dc/elements/1.1/">
 <Lexicon id="{id}" label="Small" language="{language}" email="a@b.c" license="none" version="1">
  {entries}
  {synsets}
 </Lexicon>
</LexicalResource>
"""
# Word: its synsets. The country stands before the bird, as it does in larger data.
WORDS = {
    "Turkey": ["country"],
    "crane": ["machine", "bird"],
    "wading bird": ["wader"],
    "turkey": ["fowl"],
    "device": ["device"],
    "animal": ["animal"],
    "hoist": ["machine"],
    "glass": ["device"],
}
ABOVE = {"machine": "device", "bird": "wader", "wader": "animal", "fowl": "animal"}


def lexicon_file(path: Path, name: str = "small", language: str = "en") -> Path:
    entries = "".join(
        f'<LexicalEntry id="{name}-w{i}"><Lemma writtenForm="{word}" partOfSpeech="n"/>'
        + "".join(f'<Sense id="{name}-s{i}-{s}" synset="{name}-{s}"/>' for s in senses)
        + "</LexicalEntry>"
        for i, (word, senses) in enumerate(WORDS.items())
    )
    synsets = ""
    for synset in dict.fromkeys(s for senses in WORDS.values() for s in senses):
        above = ABOVE.get(synset)
        relation = f'<SynsetRelation relType="hypernym" target="{name}-{above}"/>' if above else ""
        told = "" if synset == "wader" else f"<Definition>what a {synset} is</Definition>"
        synsets += f'<Synset id="{name}-{synset}" ili="" partOfSpeech="n">{told}{relation}</Synset>'
    text = LEXICON.format(id=name, language=language, entries=entries, synsets=synsets)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def wn(tmp_path: Path) -> Iterator[Any]:
    module = pytest.importorskip("wn", reason="needs wn: pip install 'byname[wordnet]'")
    before = module.config._data_directory  # the public name makes the folder
    module.config.data_directory = tmp_path / "wn"
    yield module
    module.config.data_directory = before


@pytest.fixture
def small(wn: Any, tmp_path: Path) -> Any:
    wn.add(lexicon_file(tmp_path / "small.xml"), progress_handler=None)
    return wn


def test_senses(small: Any) -> None:
    first, second = wordnet_lookup()("crane")
    assert (first.id, first.definition) == ("small-machine", "what a machine is")
    assert set(first.lemmas) == {"crane", "hoist"}
    assert first.hypernyms == ("device", "glass")
    assert second.hypernyms == ("wading bird", "animal")
    (wader,) = wordnet_lookup("small:1")("wading bird")
    assert wader.definition == ""


def test_names_that_are_not_lemmas(small: Any) -> None:
    look_up = wordnet_lookup()
    assert look_up("zorgle") == look_up("") == look_up("{} %_'") == []
    assert [sense.id for sense in look_up("cranes")] == ["small-machine", "small-bird"]
    assert [sense.id for sense in look_up("glass")] == ["small-device"]
    assert [sense.id for sense in look_up("Crane")] == ["small-machine", "small-bird"]


def test_the_name_as_it_is_written_comes_first(small: Any) -> None:
    look_up = wordnet_lookup()
    assert look_up("turkey")[0].id == "small-fowl"
    assert look_up("Turkey")[0].id == "small-country"


def test_with_the_member(small: Any) -> None:
    tree = Taxonomy([Node("w", "Wading bird"), Node("c", "crane", "w"), Node("h", "hoist")])
    member = create("wordnet")
    member.lookup = wordnet_lookup()
    made = member.generate(tree)
    assert made.texts("c") == ["a photo of a crane.", "a photo of a crane, what a bird is."]
    assert made.texts("h") == ["a photo of a hoist.", "a photo of a hoist, what a machine is."]
    assert made.provenance.model_dump()["dropped"] == {"other_class": 1}


def test_without_data(wn: Any) -> None:
    with pytest.raises(NeedsError) as caught:
        wordnet_lookup()
    assert str(caught.value) == (
        "cannot look names up in WordNet: an English lexicon is not installed; installed: none. "
        "Type: python -m wn download oewn:2024"
    )


def test_unknown_and_several_lexicons(small: Any, tmp_path: Path) -> None:
    with pytest.raises(NeedsError) as caught:
        wordnet_lookup("oewn:2030")
    assert "'oewn:2030' is not installed; installed: small:1." in str(caught.value)
    assert "python -m wn download oewn:2030" in str(caught.value)
    small.add(lexicon_file(tmp_path / "fr.xml", "french", "fr"), progress_handler=None)
    assert len(wordnet_lookup()("crane")) == 2
    small.add(lexicon_file(tmp_path / "more.xml", "more"), progress_handler=None)
    with pytest.raises(NeedsError) as caught:
        wordnet_lookup()
    assert "several lexicons fit: small:1, more:1." in str(caught.value)
    assert "wordnet[lexicon=more:1]" in str(caught.value)
    assert [sense.id for sense in wordnet_lookup("more")("hoist")] == ["more-machine"]


def test_damaged_data(wn: Any) -> None:
    folder = Path(wn.config.data_directory)
    (folder / "wn.db").write_bytes(b"no database" * 100)
    with pytest.raises(NeedsError, match=r"its data cannot be read: .*Install the data again"):
        wordnet_lookup()


def test_nothing_is_downloaded(wn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("downloaded")

    monkeypatch.setattr(wn, "download", refused)
    monkeypatch.setattr("socket.socket", refused)
    with pytest.raises(NeedsError, match="not installed"):
        wordnet_lookup("oewn:2024")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wn", None)
    with pytest.raises(NeedsError) as caught:
        wordnet_lookup()
    assert str(caught.value) == (
        "cannot look names up in WordNet: the library 'wn' is not installed. "
        "Type: pip install 'byname[wordnet]'; python -m wn download oewn:2024"
    )
