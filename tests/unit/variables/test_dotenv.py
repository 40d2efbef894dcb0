"""What a `.env` file means, and what is refused since it means different things elsewhere."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.variables.dotenv import MAX_FILE_BYTES, BadDotenv, parse

VALUES = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=60)


@pytest.mark.parametrize(
    ("content", "variables"),
    [
        ("", {}),
        ("\n  \n# comment\n\t# another", {}),
        ("A=b", {"A": "b"}),
        ("\ufeffA=b\r\nB=c\r\n", {"A": "b", "B": "c"}),
        ("export A=b\n  export\tB=c", {"A": "b", "B": "c"}),
        ("A=\nB=''\nC=\"\"\nD= # nothing", {"A": "", "B": "", "C": "", "D": ""}),
        ("A=b c  # comment\nB=b#c\t", {"A": "b c", "B": "b#c"}),
        ("A=https://x.example/?a=b&c=d", {"A": "https://x.example/?a=b&c=d"}),
        ("A='$x `y` \\n # \"z\"' # comment", {"A": '$x `y` \\n # "z"'}),
        ('A="it\'s # \\n\\t\\r\\\\ \\" \\$x \\`" ', {"A": "it's # \n\t\r\\ \" $x `"}),
        ("A='one\ntwo'\nB=\"one\n\ntwo\"\nC=x", {"A": "one\ntwo", "B": "one\n\ntwo", "C": "x"}),
        ("A=é漢", {"A": "é漢"}),
        ("B=1\nA=2", {"B": "1", "A": "2"}),
    ],
)
def test_what_all_dialects_understand_alike_is_taken(
    content: str, variables: dict[str, str]
) -> None:
    found = parse(content.encode())

    assert found == variables
    assert list(found) == list(variables)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("A=1\nhunter2", "Line 2 is not NAME=value"),
        ("A = hunter2", "Line 1 is not NAME=value"),
        ("A= hunter2", "Line 1 is not NAME=value"),
        ("=hunter2", "Line 1 is not NAME=value"),
        ("\n\nA=hunter2$B", "Line 3: what the value is"),
        ("A=`hunter2`", "Line 1: what the value is"),
        ("A=hunter2's", "Line 1: what the value is"),
        ("A=C:\\hunter2", "Line 1: what the value is"),
        ("A=#hunter2", "Line 1: what the value is"),
        ('A="hunter2 $B"', "Line 1: \\$ in double quotes"),
        ('A="hunter2 \\d"', "Line 1: \\\\ in double quotes"),
        ('A="hunter2 `b`"', "Line 1: ` in double quotes"),
        ("A='x\ny'\nB='hunter2\n", "Line 3: the quote is not closed"),
        ('A="hunter2\\"', "Line 1: the quote is not closed"),
        ("A='a'hunter2", "Line 1: something follows"),
        ("A='a' 'hunter2'", "Line 1: something follows"),
        ("A=hunter2\nA=hunter3", "Line 2: A is there twice"),
        ("A-B=hunter2", "Line 1: A variable's name has letters"),
        ("A=1\nPATH=hunter2", "Line 2: PATH cannot be set"),
        ("A=hunter2\0", "Line 1: A variable's value must not contain NUL"),
        ("A=" + "hunter2" * 5000, "Line 1: A variable's value can have at most 32 KiB"),
    ],
)
def test_what_is_not_certain_is_refused_by_its_line_and_not_shown(content: str, told: str) -> None:
    with pytest.raises(BadDotenv, match=told) as caught:
        parse(content.encode())

    assert "hunter2" not in str(caught.value)


def test_what_is_no_text_or_too_long_is_refused() -> None:
    with pytest.raises(BadDotenv, match="not UTF-8"):
        parse(b"A=\xff")
    with pytest.raises(BadDotenv, match="1024 KiB"):
        parse(b"#" * (MAX_FILE_BYTES + 1))
    assert parse(b"# x\n" * (MAX_FILE_BYTES // 4)) == {}


@given(VALUES)
def test_any_text_goes_through_quotes(value: str) -> None:
    escaped = value
    for char in '\\"$`':
        escaped = escaped.replace(char, f"\\{char}")

    assert parse(f'A="{escaped}"\nB=x'.encode()) == {"A": value, "B": "x"}
    if "'" not in value:
        assert parse(f"A='{value}'\nB=x".encode()) == {"A": value, "B": "x"}


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(BadDotenv):
        parse(content)
