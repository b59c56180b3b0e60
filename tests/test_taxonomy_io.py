"""Readers, writers and numbers of taxonomies; most of this file is bad input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from byname.errors import OutputError, TaxonomyError
from byname.taxonomy import Node, Taxonomy
from byname.taxonomy_io import (
    parse_classes_argument,
    read_taxonomy,
    taxonomy_stats,
    write_taxonomy,
)

Put = Callable[[str, str | bytes], Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a file and return its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def names(taxonomy: Taxonomy) -> list[str]:
    return [node.name for node in taxonomy.classes]


# -- Python objects and values of the command line


def test_python_objects() -> None:
    t = Taxonomy.from_names(["a", "b"])
    assert read_taxonomy(t) is t
    for source in (["a", "b"], ("a", "b"), np.array(["a", "b"]), (n for n in "ab"), "a,b"):
        assert read_taxonomy(source) == t
    assert read_taxonomy([Node("a", "a"), Node("b", "b")]) == t
    assert read_taxonomy(np.array([1, 2])).class_ids == ("1", "2")
    tree = read_taxonomy({"x": ["a", "b"], "y": {"z": ("c",), "d": None, "e": {}}})
    assert tree.class_ids == ("x.a", "x.b", "y.z.c", "y.d", "y.e")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (5, "they are of type int. Give names in an order, a path, a mapping or a Taxonomy"),
        (None, "they are of type NoneType"),
        ({"a", "b"}, "they are of type set. Give names in an order"),
        (b"a,b", "they are of type bytes"),
        ([], "cannot use these classes: there are none"),
        ({}, "there are none"),
        (["a", " "], "there is no name at item 2 of the top level"),
        (["a", None], "item 2 of the top level is null"),
        (["a", 0.5], r"item 2 of the top level is a number \(0.5\)"),
        (["a", ["b"]], "item 2 of the top level is a list. Give a list of names"),
        ({"a": "text"}, r"the content of 'a' is text \('text'\)"),
        ({"a": [True]}, r"item 1 of the content of 'a' is true or false \(True\)"),
        ({"name": "a", "children": "b"}, "the content of 'a' is text"),
        ([{"children": ["a"]}], "there is no name at item 1 of the top level"),
        ([{"name": "a", "id": ["b"]}], r"'id' at item 1 of the top level \(a\) is a list"),
        ([{"name": "a", "aliases": [["b"]]}], "'aliases' at .* is a list. Give text"),
        (
            [{"name": "a", "id": "x"}, {"name": "b", "id": "x"}],
            r"several classes have the id 'x' \(item 1 of the top level \(a\) and item 2",
        ),
    ],
)
def test_python_objects_refused(source: object, message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        read_taxonomy(source)  # type: ignore[arg-type]


def test_command_line_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert names(parse_classes_argument("Red Apple, Pear,,")) == ["Red Apple", "Pear"]
    assert names(parse_classes_argument('"a, b",c')) == ["a, b", "c"]
    assert names(parse_classes_argument("kiwi")) == ["kiwi"]
    assert names(parse_classes_argument("St. Bernard")) == ["St. Bernard"]
    assert names(parse_classes_argument("a\nb,c")) == ["a b", "c"]
    assert len(parse_classes_argument(",".join(f"class {i}" for i in range(2000)))) == 2000
    Path("a,b").write_text("from a file\n")
    assert names(parse_classes_argument("a,b")) == ["from a file"]
    Path("words").write_text("x\ny\n")
    assert names(parse_classes_argument("words")) == ["x", "y"]
    Path("folder").mkdir()
    one = parse_classes_argument("folder")
    assert names(one) == ["folder"]
    assert one.warnings == ("'folder' is also a folder here; it was read as the name of a class",)


@pytest.mark.parametrize("value", ["gone.txt", "GONE.CSV", "a,b.json", "in/gone", "x,AC/DC"])
def test_a_value_that_looks_like_a_file_must_exist(value: str) -> None:
    with pytest.raises(TaxonomyError) as caught:
        parse_classes_argument(value)
    assert str(caught.value) == (
        f"cannot read the classes in '{value}': there is no such file. Check the path; names "
        "that contain a '/' or end like a file go into a text file."
    )


@pytest.mark.parametrize("value", ["", "  ", ",", " , ,"])
def test_a_value_without_a_name(value: str) -> None:
    with pytest.raises(TaxonomyError, match=r"it holds no name\. Give names"):
        parse_classes_argument(value)


def test_lineage_belongs_to_tables(put: Put) -> None:
    for source in ("a,b", put("a.txt", "a"), ["a"], {"a": []}):
        with pytest.raises(TaxonomyError, match="a lineage names columns of a table"):
            read_taxonomy(source, lineage=("a", "b"))
    with pytest.raises(TaxonomyError, match="it is empty, or names a column twice"):
        read_taxonomy(put("a.csv", "name\na\n"), lineage="name,name")


# -- files as such


def test_text(put: Put) -> None:
    path = put("a.txt", "\ufeff# comment\r\nRöd\r\n\r\n#1 fan\r  Blue  \n#\n")
    assert names(read_taxonomy(path)) == ["Röd", "#1 fan", "Blue", "#"]
    assert names(read_taxonomy(str(path))) == ["Röd", "#1 fan", "Blue", "#"]
    assert names(read_taxonomy(put("coco.names", "cat\ndog"))) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "the file is empty. Write at least one name"),
        ("a.csv", "\ufeff \n", "the file is empty"),
        ("a.txt", b"# only\n# comments\n", "there are none"),
        ("a.txt", b"ok\nr\xf6d\n", r"it is not UTF-8: byte 5, on line 2, is 0xf6. Convert it"),
        ("a.txt", b"\xef\xbb\xbfok\nr\xf6d", r"byte 8, on line 2, is 0xf6.*-f WINDOWS-1252"),
        ("a.txt", "röd".encode("utf-16"), "it is UTF-16, not UTF-8.*iconv -f UTF-16 -t UTF-8"),
        ("a.txt", "röd".encode("utf-32"), "it is UTF-32"),
        ("a.txt", b"PK\x03\x04\x00\x00", r"it is not a text file \(byte 5 is NUL\)"),
        ("a.parquet", b"PAR1", r".parquet is not a format for classes. Use one of .txt, .csv"),
        ("a.json", b'["a",\n ]', "it is not JSON: Expecting value: line 2 column 2"),
        ("a.json", b"[" * 100_000, "its lists are nested too deeply"),
        ("a.json", b"[" + b"9" * 5000 + b"]", "it is not JSON: Exceeds the limit"),
        ("a.json", b'{"a": ["x"], "a": ["y"]}', "the key 'a' stands twice"),
        ("a.json", b"7", r"the top level is a number \(7\)"),
        ("a.json", b'{"name": "r", "children": []}', None),
    ],
)
def test_files_refused(put: Put, name: str, content: str | bytes, message: str | None) -> None:
    path = put(name, content)
    if message is None:
        assert names(read_taxonomy(path)) == ["r"]
        return
    with pytest.raises(TaxonomyError, match=message) as caught:
        read_taxonomy(path)
    assert str(caught.value).startswith(f"cannot read the classes in '{path}': ")


def test_a_folder_and_an_unreadable_file(tmp_path: Path, put: Put) -> None:
    with pytest.raises(TaxonomyError, match="it is a folder"):
        read_taxonomy(tmp_path)
    with pytest.raises(TaxonomyError, match="Not a directory"):
        read_taxonomy(put("a.txt", "a") / "b.txt")
    if os.geteuid():
        path = put("b.txt", "b")
        path.chmod(0)
        with pytest.raises(TaxonomyError, match="Permission denied"):
            read_taxonomy(path)


# -- tables


def test_table_of_parents(put: Put) -> None:
    text = (
        'ID,Name,parent,aliases,description\nk,Kiwi,f,"a;b",green\nf,Fruit,,,\nm,"Milk, fat",,,\n'
    )
    expected = Taxonomy(
        [
            Node("k", "Kiwi", "f", ("a", "b"), "green"),
            Node("f", "Fruit"),
            Node("m", "Milk, fat"),
        ]
    )
    assert read_taxonomy(put("a.csv", text)) == expected
    assert read_taxonomy(put("a.tsv", "id\tname\tparent\nk\tK, x\t\n")).nodes[1].name == "K, x"
    assert read_taxonomy(put("t.csv", "\tname\tparent\n1\tK, x\t\n")).nodes[1].name == "K, x"
    semicolons = put("b.csv", 'class_id;name;parent;aliases\n1;"a\nb";;"x;y"\n\n2;c;1;\n3;d;1;\n')
    t = read_taxonomy(semicolons)
    assert (t.root.id, t.root.name, t.root.aliases) == ("1", "a b", ("x", "y"))
    assert t.class_ids == ("2", "3")


def test_parents_are_names_where_there_are_no_ids(put: Put) -> None:
    t = read_taxonomy(put("a.csv", "name,parent\nKiwi,Fruit\nFruit,\nMilk,\n"))
    assert t.path("fruit.kiwi") == ("fruit", "fruit.kiwi")
    with pytest.raises(TaxonomyError, match="line 4 has the parent 'x', a name that 2 rows bear"):
        read_taxonomy(put("a.csv", "name,parent\nx,\nx,\ny,x\n"))


def test_several_parents(put: Put) -> None:
    text = "id,name,parent\na,A,\nb,B,\nc,C,a;b\nd,D,b\nd,D,a\n"
    t = read_taxonomy(put("a.csv", text))
    assert (t.path("c"), t.path("d")) == (("a", "c"), ("b", "d"))
    assert t.warnings[0] == "nodes with several parents, of which the first is used (2): d, c"


def test_flat_tables_and_missing_ids(put: Put) -> None:
    t = read_taxonomy(put("a.csv", "name\nRed Apple\nPear\n"))
    assert (t.class_ids, t.levels, t.warnings) == (("red-apple", "pear"), (), ())
    t = read_taxonomy(put("a.csv", "id,name\npear,x\n,Pear\n"))
    assert t.class_ids == ("pear", "pear-2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,title\n1,a\n", "there is no column 'name'; the columns .* are 'id', 'title'. Name"),
        ("name\n", "there is no row below the header"),
        ("name,id\na,1\nb\n", "line 3 has 1 cells and the header has 2"),
        ('name,id\n"a\nb",1\n\nc,2,3\n', "line 5 has 3 cells and the header has 2"),
        ("name,name\na,b\n", "several columns are named name"),
        ('name,id\n"a"b,1\n', "line 2 is not CSV: ',' expected after '\"'"),
        ('name,id\na,1\n"b,2\n', "line 3 is not CSV: unexpected end of data"),
        ("name,id\n,1\n", "there is no name at line 2"),
        ("id,name\nx,a\ny,b\nx,c\n", r"the id 'x' \(line 2 and line 4\). Give each its own"),
        ("id,name,parent\nx,a,\nx,a,\n", r"the id 'x' \(line 2 and line 3\)"),
        ("id,name,parent\nx,a,\ny,b,\nx,c,y\n", r"the id 'x' \(line 2 and line 4\)"),
        ("id,name,parent\na,A,zz\n", r"not rows of the file \(line 2: 'zz' of 'A'\). Add a row"),
        ("id,name,parent\na,A,b\nb,B,a\n", "the parents run in a circle: a -> b -> a"),
        ("name,parent\na,b\nb,a\n", "the parents run in a circle"),
    ],
)
def test_tables_refused(put: Put, text: str, message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        read_taxonomy(put("a.csv", text))


LINEAGE = "g,c,name,id\nF,Apple,Apple,1\nF,Apple,Red,2\nV,Apple,Earth,3\nV,,Leek,4\n,,Milk,5\n"


def test_lineage_groups_by_path_not_by_name(put: Put) -> None:
    t = read_taxonomy(put("a.csv", LINEAGE), lineage=("g", "c", "name"))
    assert t.class_ids == ("1", "2", "3", "4", "5")
    assert t.path("2") == ("f", "f.apple", "2")
    assert t.path("3") == ("v", "v.apple", "3")
    assert (t.path("4"), t.path("5")) == (("v", "4"), ("5",))
    assert t.levels == ("g", "c", "name")
    assert t.cut("c")[0].class_ids == ("f.apple", "v.apple", "4", "5")
    assert read_taxonomy(put("a.csv", LINEAGE), lineage="g, c,name") == t
    assert read_taxonomy(put("a.csv", LINEAGE), lineage="name").levels == ("name",)
    assert read_taxonomy(put("a.csv", "a,b\nx,y\nz,w\n"), lineage="a,b").class_ids == ("x.y", "z.w")


def test_lineage_with_one_group_has_it_as_root(put: Put) -> None:
    t = read_taxonomy(put("a.csv", "g,name\nF,a\nF,b\n"), lineage="g,name")
    assert (t.root.name, t.class_ids, t.levels) == ("F", ("a", "b"), ("name",))
    assert t.warnings == ("all classes are in 'F', which becomes the root: there is no level 'g'",)


@pytest.mark.parametrize(
    ("text", "lineage", "message"),
    [
        (
            LINEAGE,
            "g,kind,name",
            "there is no column 'kind'; the columns of the first line are 'g'",
        ),
        ("g,c,name\n,x,a\n", "g,c,name", "the column g is empty"),
        ("g,c,name\nF,x,a\n,y,b\n", "g,c,name", "line 3 has no 'g', but has a level below it"),
    ],
)
def test_lineage_refused(put: Put, text: str, lineage: str, message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        read_taxonomy(put("a.csv", text), lineage=lineage)


def test_lineage_is_guessed_only_where_columns_nest(put: Put) -> None:
    head = "class_id,name,fine,top,count,note\n"
    rows = ["1,a,x,T,5,", "2,b,x,T,5,u", "3,c,y,T,6,v", "4,d,z,U,6,w", "5,e,z,U,6,w"]
    t = read_taxonomy(put("a.csv", head + "\n".join(rows)))
    assert t.levels == ("top", "fine", "name")
    assert t.warnings[0] == (
        "lineage guessed: top > fine > name (columns of the file); pass --lineage to choose"
    )
    colour = ["name,kind,colour", "a,x,red", "b,x,blue", "c,y,red", "d,z,blue"]
    t = read_taxonomy(put("b.csv", "\n".join(colour)))
    assert (t.height, t.levels) == (1, ())
    assert t.warnings == (
        "no tree was made of the columns kind, colour: colour and kind do not nest; "
        "pass --lineage to choose",
    )


# -- nested JSON and Newick


def test_nested_json(put: Put) -> None:
    tree = {
        "name": "all",
        "size": 5,
        "children": [
            {"name": "F", "id": "f", "children": ["a", {"name": "b", "id": 7, "aliases": "x;y"}]},
            {"name": "c", "children": [], "description": "d"},
            {"G": ["e", {"H": {"i": []}}]},
        ],
    }
    t = read_taxonomy(put("a.json", json.dumps(tree)))
    assert t.root.id == "all"
    assert t.class_ids == ("f.a", "7", "c", "g.e", "g.h.i")
    assert t.node("7").aliases == ("x", "y")
    assert t.node("c").description == "d"
    assert read_taxonomy(put("b.json", '["a", "b"]')) == Taxonomy.from_names(["a", "b"])
    assert read_taxonomy({"children": ["toys"], "adults": ["tools"]}).height == 2
    two = read_taxonomy([{"name": "x", "children": ["a"]}, {"name": "y", "children": ["b"]}])
    assert two.class_ids == ("x.a", "y.b")


def test_deep_nesting_is_read_or_refused_not_crashed(put: Put) -> None:
    depth = 1200
    value: dict[str, object] = {"name": "x"}
    for _ in range(depth):
        value = {"name": "x", "id": None, "children": [value]}
    t = read_taxonomy(value)
    assert t.height == depth
    with pytest.raises(OutputError, match=r"the tree is too deep for JSON. Use .csv"):
        write_taxonomy(t, put("a.json", ""))
    text = "(" * depth + "a" + ")" * depth + ";"
    assert read_taxonomy(put("a.nwk", text)).height == depth - 1


def test_newick(put: Put) -> None:
    text = "[&R] ((a:1,b_b:2e-3 [x;(])c:1,'quo''ted, (n)_1':3,(d,Swainson's_hawk))'the root':0 ;\n"
    t = read_taxonomy(put("a.nwk", text))
    assert names(t) == ["a", "b b", "quo'ted, (n)_1", "d", "Swainson's hawk"]
    assert [n.name for n in t.nodes if n not in t.classes] == ["the root", "c", "node 1"]
    assert names(read_taxonomy(put("b.tree", "(a,b)"))) == ["a", "b"]
    assert read_taxonomy(put("b.tree", "(a,b);")).root.id == ""
    assert names(read_taxonomy(put("b.newick", "a;"))) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("((a,b);", r"line 1, character 8: 1 '\(' are not closed. Newick looks like"),
        ("(a,b));", r"line 1, character 6: a '\)' without a '\(' before it"),
        ("a,b;", "line 1, character 2: a ',' without"),
        ("(a,\nb)c(d);", r"line 2, character 4: a '\(' where none can be"),
        ("(a,'b);", "line 1, character 4: a quote that is not closed"),
        ("(a,[b);", r"line 1, character 4: a '\[' that is not closed"),
        ("(a,b]);", r"line 1, character 5: '\]' where none can be"),
        ("(a,b);(c);", "line 1, character 7: there is more text after ';'"),
        ("('b' 'c');", "line 1, character 6: the label 'c' follows another label"),
        ("(a:1:2);", "a ':' where none can be"),
        ("(a,,b);", "there is no name at character 4"),
        ("();", "there is no name at character 2"),
        (";", "there is no name at character 1"),
    ],
)
def test_newick_refused(put: Put, text: str, message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        read_taxonomy(put("a.nwk", text))


# -- writing


@pytest.fixture
def mixed() -> Taxonomy:
    return Taxonomy(
        [
            Node("a", "A, 'x'", "g", ("p", "q"), "d"),
            Node("b", 'B "y"', "h"),
            Node("c", "C_c", "g"),
            Node("g", "G"),
            Node("h", "H"),
        ],
        levels=("group", "name"),
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json"])
def test_write_and_read_back(mixed: Taxonomy, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_taxonomy(mixed, path)
    again = read_taxonomy(path)
    assert again == mixed
    assert again.levels == (mixed.levels if suffix == ".json" else ())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_write_names_and_newick(mixed: Taxonomy, tmp_path: Path) -> None:
    write_taxonomy(mixed, tmp_path / "a.nwk")
    text = "(('A, ''x''','C_c')G,('B \"y\"')H);\n"
    assert (tmp_path / "a.nwk").read_text() == text
    write_taxonomy(mixed, tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "A, 'x'\nB \"y\"\nC_c\n"


def test_write_refused(mixed: Taxonomy, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"'\.xlsx' is not a known format\. Use one of \.txt"):
        write_taxonomy(mixed, tmp_path / "a.xlsx")
    with pytest.raises(OutputError, match=r"No such file or directory\. Choose a folder that"):
        write_taxonomy(mixed, tmp_path / "gone" / "a.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Not a directory"):
        write_taxonomy(mixed, tmp_path / "file" / "a.csv")
    (tmp_path / "dir.csv").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        write_taxonomy(mixed, tmp_path / "dir.csv")
    with pytest.raises(OutputError, match=r"# x would be read as a comment\. Use \.csv"):
        write_taxonomy(Taxonomy.from_names(["# x"]), tmp_path / "a.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dir.csv", "file"]


def test_a_given_json_order_that_does_not_fit_is_ignored() -> None:
    t = read_taxonomy({"children": ["a", "b"], "given_order": ["a"], "levels": ["x", "y"]})
    assert (t.class_ids, t.levels) == (("a", "b"), ())
    t = read_taxonomy({"children": ["a", "b"], "given_order": ["b", "a"], "levels": ["x"]})
    assert (t.class_ids, t.levels) == (("b", "a"), ("x",))


# -- numbers


def test_stats(mixed: Taxonomy) -> None:
    stats = taxonomy_stats(mixed)
    assert json.loads(json.dumps(stats)) == stats
    del stats["fingerprint"]
    assert stats == {
        "leaves": 3,
        "nodes": 5,
        "internal_nodes": 2,
        "height": 2,
        "levels": ["group", "name"],
        "leaf_depths": {"2": 3},
        "lca_height_histogram": {"0": 3, "1": 2, "2": 4},
        "duplicate_names": {},
        "single_child_chains": 1,
        "leaves_without_sibling": 1,
        "warnings": ["inner nodes with a single child (1): h"],
    }


# Published numbers of the five trees: classes, height, inner nodes, pairs by height.
TREES = {
    "food-101": (101, 4, 16, [101, 540, 1486, 1528, 6546]),
    "ucf-101": (101, 3, 13, [101, 552, 3028, 6520]),
    "cub-200": (200, 3, 51, [200, 2262, 15996, 21542]),
    "sun-324": (324, 4, 19, [324, 7396, 33866, 10904, 52486]),
    "imagenet-998": (
        998,
        13,
        368,
        [998]
        + [2 * n for n in (729, 1501, 2964, 7769, 8154, 8853, 4245, 57202, 74065, 30474)]
        + [2 * n for n in (20557, 16915, 264075)],
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_published_trees(shared: Path, name: str) -> None:
    t = read_taxonomy(shared / "taxonomies" / f"{name}.json")
    stats = taxonomy_stats(t)
    leaves, height, inner, pairs = TREES[name]
    assert (stats["leaves"], stats["height"], stats["internal_nodes"]) == (leaves, height, inner)
    assert stats["nodes"] == leaves + inner + 1  # these files have a root
    assert list(stats["lca_height_histogram"].values()) == pairs
    assert np.bincount(t.lca_heights().ravel()).tolist() == pairs
    if name == "cub-200":
        assert (stats["single_child_chains"], stats["leaves_without_sibling"]) == (21, 12)


def test_grocery(shared: Path) -> None:
    t = read_taxonomy(shared / "grocery" / "classes.csv")
    assert t.levels == ("group", "coarse", "name")
    assert t.warnings[0].startswith("lineage guessed: group > coarse > name (columns of the file)")
    assert t.class_ids == tuple(map(str, range(81)))
    assert t.path("0") == ("fruit", "fruit.apple", "0")
    assert t.cut("group")[0].class_ids == ("fruit", "packages", "vegetables")
    assert len(t.cut("coarse")[0]) == 43
    same = [n for n in t.classes if n.name == t.node(t.ancestors(n.id)[0]).name]
    assert len(same) == 26
    assert len(t.unique_names()) == 81


@pytest.mark.parametrize("text", ["https://a.org/c.csv", "http://a.org/x?a,b", "s3://bucket/c.txt"])
def test_a_url_is_named_as_one(text: str) -> None:
    with pytest.raises(TaxonomyError, match=r"it is a URL\. Download it first"):
        read_taxonomy(text)


@pytest.mark.parametrize(
    "text",
    [
        "file_name,name\na.jpg,cat\nb.jpg,cat\n",
        "Filename,class_id,name\na.jpg,1,cat\nb.jpg,1,cat\n",
        "image_path,label\na.jpg,cat\nb.jpg,dog\n",
    ],
)
def test_a_table_of_labels_is_no_table_of_classes(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(TaxonomyError, match=r"looks like a table of labels, .* delete '[Ffi]"):
        read_taxonomy(tmp_path / "l.csv")


def test_a_table_of_classes_with_a_photo_each_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("file_name,name,parent\na.jpg,cat,\nb.jpg,dog,\n")
    found = read_taxonomy(tmp_path / "c.csv")
    assert len(found) == 2
    assert any("looks like a table of labels" in text for text in found.warnings)
    (tmp_path / "d.csv").write_text("filename,name\na.jpg,cat\nb.jpg,dog\n")
    assert any("'filename'" in text for text in read_taxonomy(tmp_path / "d.csv").warnings)
