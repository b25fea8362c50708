"""The results file: a section is replaced by its heading, and nothing else is touched."""

import importlib.util
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Path(__file__).resolve()
SPEC = importlib.util.spec_from_file_location("benchmark_results", HERE.parents[2] / "benchmarks" / "results.py")
results = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(results)

words = st.text("abc |", min_size=1, max_size=8).map(lambda text: "x" + text.rstrip() + "x")
bodies = st.lists(words, min_size=1, max_size=4).map("\n".join)


@settings(max_examples=50, deadline=None)
@given(st.lists(bodies, min_size=3, max_size=3), bodies)
def test_one_section_is_replaced_and_the_others_stay(contents, fresh):
    document = results.TITLE
    for number, content in enumerate(contents):
        document = results.with_section(document, f"## Part {number}", content)
    changed = results.with_section(document, "## Part 1", fresh)
    parts = [part.strip() for part in ("\n" + changed).split("\n## Part ")]
    assert parts[1:] == [f"0\n\n{contents[0]}", f"1\n\n{fresh}", f"2\n\n{contents[2]}"]
    assert parts[0] == results.TITLE.strip()
    assert results.with_section(changed, "## Part 1", fresh) == changed


def test_headings_in_code_are_no_headings_and_deeper_ones_belong_to_the_section():
    document = results.with_section("# T\n", "## A", "```\n## B\n```\n### deeper\nold")
    changed = results.with_section(document, "## A", "new")
    assert changed == "# T\n\n## A\n\nnew\n"


def test_the_file_is_made_and_kept_whole(tmp_path):
    path = tmp_path / "RESULTS.md"
    results.write_section("## One", "first", path)
    results.write_section("## Two", "second", path)
    results.write_section("## One", "again", path)
    assert path.read_text() == results.TITLE + "\n## One\n\nagain\n\n## Two\n\nsecond\n"
    assert list(tmp_path.iterdir()) == [path]
