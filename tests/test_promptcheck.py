"""What the check of prompts finds, what cleaning makes of it, and what moderation is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import PromptError, UsageError
from byname.moderation import Moderator, Verdict, default_words, read_words
from byname.promptcheck import KINDS, Finding, check, clean
from byname.promptcheck_names import ClassNames, words_of
from byname.promptcheck_texts import fit, flaws
from byname.promptset import Pair, Prompt, PromptSet
from byname.promptset_formats import read_format
from byname.sentences import sentence_ends
from byname.taxonomy import Node, Taxonomy

CAT = Taxonomy.from_names(["cat"])
LONG = "A cat is an animal that many people keep at home because it is soft and quiet. "


def one_class(*texts: str) -> PromptSet:
    return PromptSet(classes={"cat": tuple(Prompt(text=text) for text in texts)})


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


# -- one text


@pytest.mark.parametrize(
    "text, kind, action, new",
    [
        ("1", "number", "drop", ""),
        (" (1) ", "number", "drop", ""),
        ("- \n*", "number", "drop", ""),
        ("They differ in these ways:\n\n1", "number", "drop", ""),
        ("They differ in these ways: 1.", "number", "drop", ""),
        ("A cat purrs.\n\n2", "number", "cut", "A cat purrs."),
        ("I'm sorry, but I can't say.", "refusal", "drop", ""),
        ("As an AI language model, I", "refusal", "drop", ""),
        ("A cat is small. It has: 1. A tail 2. Fur", "enumeration", "cut", "A cat is small."),
        ("1. A long tail\n2. Fur", "enumeration", "cut", "A long tail"),
        ("1) The cat has a tail.", "enumeration", "cut", "The cat has a tail."),
        ("Marks:\n 1. A soft paw; 2. Claws", "enumeration", "cut", "A soft paw;"),
        ("1. Tail\n2. Fur", "enumeration", "drop", ""),
        ("A cat has a tail. 1. It is long. 2. It is", "enumeration", "cut", "A cat has a tail."),
        ("a\u202ecat\u200b \x07is\x1b[0m \ufeffhere", "hidden", "fix", "acat is[0m here"),
        ("\u200b\u2060", "hidden", "fix", ""),
        (" A cat\n\nsits\t there ", "space", "fix", "A cat sits there"),
        (LONG + LONG + "Its fur", "unfinished", "cut", (LONG + LONG).strip()),
    ],
)
def test_flaws(text: str, kind: str, action: str, new: str) -> None:
    first = next(iter(flaws(text)))
    assert (first.kind, first.action, first.new) == (kind, action, new)


@pytest.mark.parametrize(
    "text",
    [
        "A cat with a tail of 1.5 m and 2. legs",
        "Since version 1. It runs",
        "No. 1 cat",
        "A cat",
        "A cat is small and soft, and unlike a dog it sits on the mat without a final stop",
        "Ein Büchertisch, ohne Punkt",
        "می‌خواهم",  # a joiner of no width that the word needs
        "a family \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "Sorry is a board game.",
        "It is red. It barks",  # short: nothing says that a limit cut it
        "一只猫。",
    ],
)
def test_texts_without_a_flaw(text: str) -> None:
    assert list(flaws(text)) == []


def test_numbers_of_a_class_that_is_a_number() -> None:
    digits = Taxonomy([Node("one", "1"), Node("two", "two", aliases=("2",))])
    texts = ("1", "a photo of the number: 1", "I'm sorry, no.")
    prompts = PromptSet(classes={i: tuple(Prompt(text=t) for t in texts) for i in ("one", "two")})
    found = {f.kind for f in check(prompts, digits).findings}
    assert found == {"refusal", "shared", "names_other"}


def test_sentence_ends() -> None:
    text = "Mr. Fox saw approx. 3 cats, e.g. Tom. Was it 2.5 m? Yes! J. Doe said so. end"
    assert [text[:end].split()[-1] for end in sentence_ends(text)] == ["Tom.", "m?", "Yes!"]
    assert sentence_ends("红色。很大。") == [3, 6]


@pytest.mark.parametrize(
    "text, most, new",
    [
        ("It is red. It is big. It is old and grey.", 7, "It is red. It is big."),
        ("red and big, with a tail, and old", 6, "red and big, with a tail"),
        ("red and big with a tail", 4, "red and big with"),
        ("x" * 50, 1, "x" * 50),
    ],
)
def test_long_texts_are_cut_where_they_can_be(text: str, most: int, new: str) -> None:
    assert fit([text], words, most) == [new]


def test_a_text_that_does_not_fit_at_all() -> None:
    assert fit(["abc", "abc"], lambda texts: [len(text) + 2 for text in texts], 2) == ["", ""]
    assert fit(["abc"], lambda texts: [len(text) + 2 for text in texts], 4) == ["ab"]
    assert fit([], words, 3) == []


@given(st.lists(st.text(alphabet="ab .,;A\n。", max_size=60), max_size=4), st.integers(1, 9))
def test_what_is_cut_fits_and_is_a_beginning(texts: list[str], most: int) -> None:
    for text, new in zip(texts, fit(texts, words, most), strict=True):
        assert len(new.split()) <= most
        assert text.startswith(new)


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_mended_texts_have_no_flaw_left(text: str) -> None:
    last = text
    for _ in range(6):
        found = list(flaws(last))
        if not found or found[-1].action == "drop":
            return
        assert len(found[-1].new) <= len(last)
        last = found[-1].new
    raise AssertionError(text)


def test_huge_texts_take_no_time() -> None:
    start = time.perf_counter()
    n = 3 * 10**5
    for text in (
        "." * n + "x", " " * n + "x", "1." * (n // 2), ": " * (n // 2), "\n1 " * (n // 3), "a" * n,
        '."' * (n // 2) + "x", "[.!?" * (n // 4), "e.g. " * (n // 5), "\u200b" * n, "2. " * (n // 3)
    ):  # fmt: skip
        check(one_class(text), CAT, count_tokens=words, context=20)
    assert time.perf_counter() - start < 10


# -- names


@pytest.mark.parametrize(
    "one, many",
    [
        ("knife", "knives"), ("leaf", "leaves"), ("wolf", "wolves"), ("glove", "gloves"),
        ("olive", "olives"), ("bus", "buses"), ("walrus", "walruses"), ("house", "houses"),
        ("berry", "berries"), ("movie", "movies"), ("box", "boxes"), ("potato", "potatoes"),
        ("brush", "brushes"), ("glass", "glasses"), ("giraffe", "giraffes"), ("axe", "axes"),
    ],
)  # fmt: skip
def test_plurals(one: str, many: str) -> None:
    assert words_of(one) == words_of(many)


def test_words_of_a_text() -> None:
    assert words_of("Crêpes, BERRIES; cookies & shoes") == words_of("crepe berry cookie shoe")
    assert words_of("Cre\u0302pe") == ["crepe"]
    assert words_of("") == words_of("!?_") == []


NAMES = Taxonomy(
    [
        Node("eggs", "eggs benedict"),
        Node("carrot", "carrot cake"),
        Node("choco", "chocolate cake"),
        Node("cup", "cup cakes"),
        Node("cat", "cat", aliases=("Felis catus", "猫")),
        Node("fox", "Straße"),
        Node("mark", "!"),
        Node("black", "black bear"),
    ]
)


@pytest.mark.parametrize(
    "class_id, text, own, others",
    [
        ("eggs", "An Eggs Benedict.", True, []),
        ("eggs", "A benedict on a plate", True, []),
        ("eggs", "Poached eggs on a muffin", False, []),
        ("carrot", "A cake with cream", False, []),
        ("carrot", "Like a chocolate-cake, but orange", False, ["choco"]),
        ("cup", "Cupcakes are small", True, []),
        ("cat", "FELIS CATUS at rest", True, []),
        ("cat", "一只猫在睡觉", True, []),
        ("cat", "A category of cats", True, []),
        ("cat", "A category", False, []),
        ("fox", "a STRASSE", True, []),
        ("mark", "anything", True, []),
        ("black", "A black cat", False, ["cat"]),
    ],
)
def test_which_classes_a_text_names(class_id: str, text: str, own: bool, others: list[str]) -> None:
    got, found = ClassNames(NAMES).named(class_id, text, words_of(text))
    assert (got, sorted(NAMES.class_ids[k] for k in found)) == (own, others)


# -- the whole check


def kinds(findings: Sequence[Finding]) -> list[tuple[str, int, str, str]]:
    return [(f.class_id, f.number, f.kind, f.action) for f in findings]


def test_a_report_and_what_cleaning_makes_of_it() -> None:
    taxonomy = Taxonomy.from_names(["cat", "dog", "eel", "fox"])
    prompts = PromptSet(
        classes={
            "cat": tuple(
                Prompt(text=t, weight=2.0)
                for t in ("A cat purrs.", "1", "A cat  purrs.", "A dog barks.", "Soft fur.")
            ),
            "dog": (Prompt(text="A dog barks."), Prompt(text="I'm sorry, but no.")),
            "eel": (Prompt(text="1"),),
        }
    )
    report = check(prompts, taxonomy)
    assert kinds(report.findings) == [
        ("cat", 2, "number", "drop"),
        ("cat", 3, "space", "fix"),
        ("cat", 3, "duplicate", "drop"),
        ("cat", 4, "shared", "note"),
        ("cat", 4, "names_other", "note"),
        ("cat", 5, "unnamed", "note"),
        ("dog", 1, "shared", "note"),
        ("dog", 2, "refusal", "drop"),
        ("eel", 1, "number", "drop"),
    ]
    details = {(f.class_id, f.number, f.kind): f.detail for f in report.findings}
    assert details["cat", 3, "duplicate"] == "as text 1"
    assert details["cat", 4, "shared"] == "with dog"
    assert details["cat", 4, "names_other"] == "dog"
    assert (report.missing, report.emptied) == (("fox",), ("eel",))
    assert report.counts()["number"] == {"drop": 2}
    assert report.changed() == {"dropped": 4, "cut": 0, "fixed": 0}
    assert report.not_checked == (
        "too_long: no encoder is given",
        "moderation endpoint: none is given",
    )
    made = clean(prompts, report)
    assert {i: made.texts(i) for i in made.classes} == {
        "cat": ["A cat purrs.", "A dog barks.", "Soft fur."],
        "dog": ["A dog barks."],
    }
    assert [p.weight for p in made.classes["cat"]] == [2.0] * 3
    cleaned = made.provenance.model_dump()["cleaned"]
    assert (cleaned["dropped"], cleaned["kinds"]["refusal"]) == (4, {"drop": 1})
    again = check(made, taxonomy)
    assert {f.action for f in again.findings} == {"note"}


def test_notes_can_drop() -> None:
    prompts = one_class("A cat.", "Fur.", "A submissive cat.")
    report = check(prompts, CAT, drop=["unnamed", "moderation"])
    assert clean(prompts, report).texts("cat") == ["A cat."]
    with pytest.raises(UsageError, match="cannot drop texts with 'ugly': there is no such kind"):
        check(prompts, CAT, drop=["ugly"])


@pytest.mark.parametrize(
    "text, kind",
    [
        ("A cat\u202e purrs.", "hidden"),
        ("It is a soft cat. 1. fur 2. paws", "enumeration"),
        ("A  soft cat.", "space"),
        (LONG * 2 + "It is", "unfinished"),
        ("A cat with a long tail.", "too_long"),
        ("A soft cat.\n\n1", "number"),
    ],
)
def test_what_is_mended_can_be_dropped_too(text: str, kind: str) -> None:
    context = 3 if kind == "too_long" else 1000
    prompts = one_class("A cat.", text)
    mended = check(prompts, CAT, count_tokens=words, context=context)
    assert (kind, 2) in {(f.kind, f.number) for f in mended.findings}
    assert len(clean(prompts, mended).texts("cat")) == 2
    report = check(prompts, CAT, count_tokens=words, context=context, drop=[kind])
    assert [f.action for f in report.findings if f.kind == kind] == ["drop"]
    assert clean(prompts, report).texts("cat") == ["A cat."]
    assert report.changed()["dropped"] == 1


def test_what_a_text_is_about_is_cleaned() -> None:
    node = Taxonomy([Node("a\u200eb", "cat")])
    wanted = {
        "a\u200eb": "a\u200eb",  # the id of a node
        "fur\u202e\x07 of\na cat": "fur of a cat",
        "fur of a " + "long " * 50: ("fur of a " + "long " * 38).strip(),
        "x" * 300: "x" * 200,
        "fur": "fur",
    }
    prompts = PromptSet(
        classes={
            "a\u200eb": tuple(Prompt(text=f"a cat {i}", about=a) for i, a in enumerate(wanted))
        }
    )
    report = check(prompts, node)
    assert [(f.number, f.action) for f in report.findings if f.kind == "about"] == [
        (2, "fix"), (3, "fix"), (4, "fix")]  # fmt: skip
    made = clean(prompts, report).classes["a\u200eb"]
    assert [p.about for p in made] == list(wanted.values())
    assert max(len(p.about) for p in made) <= 200
    assert [p.text for p in made] == prompts.texts("a\u200eb")
    assert len(clean(prompts, check(prompts, node, drop=["about"])).texts("a\u200eb")) == 2


@pytest.mark.parametrize(
    "name, text, left",
    [
        ("1. FC Köln", "1. FC Köln has a red badge. 2. Bundesliga is below.", True),
        ("1. FC Köln", "The badge of: 1. FC Köln", True),
        ("Boeing 747", "a photo of a\nboeing\n747", True),
        ("Boeing 747", "a photo:\nBoeing_747", True),
        ("Formula 1", "A car of\nFormula\n1", True),
        ("Sorry, Wrong Number", "Sorry, Wrong Number is a film.", True),
        ("Sorry, Wrong Number", "Sorry, wrong number; I cannot help.", False),
        ("Formula 1", "Formula 1 looks as follows:\n\n1", False),
        ("Formula 1", "Sorry, I cannot help with Formula 1.", False),
    ],
)
def test_the_rules_do_not_see_a_class_s_own_name(name: str, text: str, left: bool) -> None:
    for node in (Node("x", name), Node("x", "other", aliases=(name,))):
        prompts = PromptSet(classes={"x": (Prompt(text=text),)})
        report = check(prompts, Taxonomy([node]))
        assert {f.kind for f in report.findings} <= ({"space"} if left else {"number", "refusal"})
        assert report.mended == ((" ".join(text.split()),) if left else (None,))


def test_a_numbered_list_about_a_class_with_a_number() -> None:
    found = list(flaws("A Boeing 747 has wings. 1. Engines 2. A hump", False, ("Boeing 747",)))
    assert [(f.kind, f.new) for f in found] == [("enumeration", "A Boeing 747 has wings.")]
    # Characters of private use are no digits, whatever a text holds.
    assert list(flaws("\ue001 Boeing 747", False, ("Boeing 747",))) == []


def test_a_report_is_about_one_set() -> None:
    with pytest.raises(PromptError, match="the report is about other texts"):
        clean(one_class("a cat"), check(one_class("the cat"), CAT))


def test_the_same_text_of_another_level_is_no_plain_duplicate() -> None:
    texts = (Prompt(text="a cat", level=0), Prompt(text="a cat", level=1), Prompt(text="a cat"))
    prompts = PromptSet(classes={"cat": (*texts, texts[0])})
    found = check(prompts, CAT).findings
    assert [(f.number, f.action, f.detail) for f in found] == [
        (2, "note", "as text 1, of another kind or level"),
        (3, "note", "as text 1, of another kind or level"),
        (4, "drop", "as text 1"),
    ]
    dropped = check(prompts, CAT, drop=["duplicate"])
    assert len(clean(prompts, dropped).texts("cat")) == 1


def test_pairs_are_checked_too() -> None:
    taxonomy = Taxonomy.from_names(["cat", "dog"])
    both = (Prompt(text="A cat, unlike a dog."),)
    prompts = PromptSet(
        classes={"cat": both, "dog": both},
        pairs=(
            Pair(a="cat", b="dog", texts=("1", "A cat purrs, a dog does not.", "1")),
            Pair(a="dog", b="cat", texts=("1",)),
        ),
    )
    report = check(prompts, taxonomy)
    told = [(f.class_id, f.against, f.number, f.kind) for f in report.findings if f.against]
    assert told == [
        ("cat", "dog", 1, "number"),
        ("cat", "dog", 3, "number"),
        ("dog", "cat", 1, "number"),
    ]
    made = clean(prompts, report)
    assert [(p.a, p.texts) for p in made.pairs] == [("cat", ("A cat purrs, a dog does not.",))]


def test_lengths() -> None:
    prompts = one_class("A cat is here. It sleeps all day long.", "A cat", "cat " + "x" * 2000)
    report = check(prompts, CAT, count_tokens=words, context=5)
    assert [(f.number, f.kind, f.detail, f.new[:16]) for f in report.findings] == [
        (1, "too_long", "9 tokens, the encoder reads 5", "A cat is here."),
        (3, "too_long", "more than 2 tokens, the encoder reads 5", "cat"),
    ]
    nothing = check(prompts, CAT, count_tokens=words, context=None)
    assert nothing.not_checked[0] == "too_long: the encoder has no limit"
    tiny = check(one_class("cat"), CAT, count_tokens=lambda texts: [9] * len(texts), context=3)
    assert [(f.action, f.new) for f in tiny.findings] == [("drop", "")]
    assert tiny.emptied == ("cat",)


def test_words_that_are_marked() -> None:
    taxonomy = Taxonomy([Node("moth", "gypsy moth"), Node("chef", "chef")])
    prompts = PromptSet(
        classes={
            "moth": (Prompt(text="A gypsy moth, exotic."),),
            "chef": (Prompt(text="A chef and a Gypsy, two THUGS."), Prompt(text="Hot-blooded chef"))
        }
    )  # fmt: skip
    found = [f for f in check(prompts, taxonomy).findings if f.kind == "moderation"]
    assert [f.detail for f in found] == ["exotic", "gypsy, thug", "hot blooded"]
    assert {f.action for f in found} == {"note"}
    assert not check(prompts, taxonomy, words=()).findings
    own = check(prompts, taxonomy, words=["a chef"]).findings
    assert [f.detail for f in own] == ["a chef"]
    assert 60 <= len(default_words()) <= 130


def test_own_words(tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text("# mine\n\n nasty \nvery bad\n", encoding="utf-8")
    assert read_words(tmp_path / "w.txt") == ("nasty", "very bad")
    (tmp_path / "w.txt").write_text("# none\n")
    with pytest.raises(PromptError, match=r"w\.txt': it holds none\. Give a text file"):
        read_words(tmp_path / "w.txt")
    with pytest.raises(PromptError, match="No such file"):
        read_words(tmp_path / "x.txt")


@pytest.mark.slow
def test_a_hundred_thousand_texts_in_a_few_seconds() -> None:
    names = [f"{a} {b}{i}" for a in ("red", "old", "sea", "sand") for b in "xy" for i in range(125)]
    taxonomy = Taxonomy.from_names(names)
    tail = "with a long red tail and an old head, which is typically found near the sea, no. "
    prompts = PromptSet(
        classes={
            node.id: tuple(Prompt(text=f"A {node.name} {tail}{i}.") for i in range(100))
            for node in taxonomy.classes
        }
    )
    start = time.perf_counter()
    report = check(prompts, taxonomy, count_tokens=words, context=77)
    assert len(clean(prompts, report).classes) == 1000
    assert time.perf_counter() - start < 30  # about 5 s alone on one core
    assert not report.findings


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=5))
def test_a_clean_set_stays_as_it_is(texts: list[str]) -> None:
    texts = [text.encode(errors="replace").decode() for text in texts]
    prompts = one_class(*texts)
    for _ in range(4):
        report = check(prompts, CAT, count_tokens=words, context=9)
        prompts = clean(prompts, report)
    report = check(prompts, CAT, count_tokens=words, context=9)
    assert {f.action for f in report.findings} <= {"note"}
    assert all(kind in KINDS for kind in report.counts())


def test_a_published_file(shared: Path) -> None:
    read = read_format(shared / "prompts" / "haprompts-food-101.json")
    report = check(read.prompts, read.taxonomy)
    counts = report.counts()
    # 1 text is "1", 58 are a heading whose first item was cut off; 9 end in a later number.
    assert counts["number"] == {"cut": 9, "drop": 59}
    assert sum(text == "1" for i in read.prompts.classes for text in read.prompts.texts(i)) == 1
    assert counts["enumeration"] == {"cut": 198}
    assert counts["duplicate"] == {"drop": 12}
    # Its sentences have no last stop by design: few are called unfinished.
    assert counts["unfinished"] == {"cut": 10}
    assert report.emptied == ()


# -- moderation endpoint


def endpoint(handler: Callable[[httpx.Request], httpx.Response], **kw: int) -> Moderator:
    client = httpx.Client(transport=httpx.MockTransport(handler))
    made = Moderator("https://mod.test/v1", client=client, **kw)  # type: ignore[arg-type]
    made._wait = lambda seconds: None
    return made


def result(text: str) -> dict[str, object]:
    bad = "bad" in text
    return {"flagged": bad, "categories": {"hate": bad, "violence": False}}


def test_verdicts_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYNAME_LLM_KEY", "sk-planted")
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        texts = json.loads(request.content)["input"]
        return httpx.Response(200, json={"results": [result(text) for text in texts]})

    told = endpoint(answer, batch=2)(["good", "bad", "bad cat"])
    assert told == [Verdict(), Verdict(("hate",)), Verdict(("hate",))]
    assert [str(request.url) for request in seen] == ["https://mod.test/v1/moderations"] * 2
    assert seen[0].headers["authorization"] == "Bearer sk-planted"
    found = check(one_class("a cat", "bad cat"), CAT, moderate=endpoint(answer)).findings
    assert [(f.number, f.kind, f.action, f.detail) for f in found] == [
        (2, "moderation", "note", "endpoint: hate")
    ]


@pytest.mark.parametrize(
    "reply, error, calls",
    [
        (httpx.Response(401, text="sk-planted"), "the endpoint answers with status 401", 1),
        (httpx.Response(400), "the endpoint answers with status 400", 3),
        (httpx.Response(500), "the endpoint answers with status 500", 9),
        (httpx.Response(429, headers={"retry-after": "9"}), "answers with status 429", 9),
        (httpx.Response(200, text="<html>"), "the endpoint's answer is not JSON", 3),
        (httpx.Response(200, json={"results": []}), "has not one result for each text", 3),
        (httpx.Response(200, json={"results": [{}]}), "says nothing of 'flagged'", 3),
        (httpx.Response(200, content=b"[" * 10**5), "the endpoint's answer is not JSON", 3),
        (httpx.Response(200, content=b" " * (5 * 2**20)), "no answer (ReadTimeout)", 9),
        (httpx.ConnectError("https://user:sk-planted@x"), "no answer (ConnectError)", 9),
    ],
)
def test_an_endpoint_that_fails_is_told_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, reply: httpx.Response | Exception, error: str, calls: int
) -> None:
    monkeypatch.setenv("BYNAME_LLM_KEY", "sk-planted")
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if isinstance(reply, Exception):
            raise reply
        return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)

    prompts = one_class(*(f"cat {i}" for i in range(8)))
    report = check(prompts, CAT, moderate=endpoint(answer, batch=1))
    assert report.counts() == {"not_moderated": {"note": 8}}
    assert all(error in finding.detail for finding in report.findings)
    assert report.findings[-1].detail.endswith("no more was asked")
    assert len(asked) == calls
    assert "sk-planted" not in json.dumps(report.as_dict(CAT))
    assert clean(prompts, report).texts("cat") == prompts.texts("cat")


def test_a_key_that_comes_back_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYNAME_LLM_KEY", "sk-planted")
    one = {"flagged": True, "categories": {"x sk-planted" + "y" * 99: True}}
    told = endpoint(lambda request: httpx.Response(200, json={"results": [one]}))(["x"])
    assert told == [Verdict(("x [key]" + "y" * 53,))]


def test_an_endpoint_that_recovers() -> None:
    replies = iter([httpx.Response(503), httpx.Response(200, json={"results": [result("bad")]})])
    assert endpoint(lambda request: next(replies))(["x"]) == [Verdict(("hate",))]
    assert endpoint(lambda request: httpx.Response(500))([]) == []


def test_whom_a_key_is_sent_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BYNAME_LLM_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    assert "authorization" in Moderator("https://api.openai.com/v1/")._headers
    for other in ("https://api.openai.com.evil.test/v1", "http://api.openai.com", "http://x:1/v1"):
        assert "authorization" not in Moderator(other)._headers
    assert Moderator("https://x.test/v1/moderations?v=2").url == "https://x.test/v1/moderations?v=2"
    monkeypatch.setenv("BYNAME_LLM_KEY", "sk-own")
    assert Moderator("http://127.0.0.1:8000/v1")._headers["authorization"] == "Bearer sk-own"
    assert "sk-own" not in repr(Moderator("https://x.test"))


@pytest.mark.parametrize(
    "url, key, message",
    [
        ("x.test/v1", "", "it is no http address. Give one such as https://api.openai.com/v1."),
        ("ftp://x.test", "", "endpoint 'ftp://x.test': it is no http address"),
        ("http://[", "", "its address is none"),
        ("https://x.test:99999", "", "its address is none"),
        ("https://me:secret@x.test", "", "it holds a password. Set BYNAME_LLM_KEY instead."),
        ("http://x.test", "sk-own", "the key in BYNAME_LLM_KEY would go over plain http"),
        ("https://x.test", "sk\nown", "the key in BYNAME_LLM_KEY cannot be sent. Set it anew."),
    ],
)
def test_endpoints_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, key: str, message: str
) -> None:
    monkeypatch.setenv("BYNAME_LLM_KEY", key)
    with pytest.raises(UsageError) as error:
        Moderator(url)
    assert message in str(error.value)
    assert "secret" not in str(error.value)
    assert "sk" not in str(error.value).replace("asked", "")
