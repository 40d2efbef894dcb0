import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.cli import output
from craftastic.cli.output import choose, printable, read_secret_line, show_table
from craftastic.errors import InvalidInput, Unauthenticated


@given(st.text())
def test_nothing_that_is_printed_can_drive_a_terminal(text: str) -> None:
    shown = printable(text)

    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown)


def test_text_that_turns_the_reading_direction_is_taken_out() -> None:
    assert printable("a\u202eb\u200bc") == "abc"


def test_words_of_every_language_stay() -> None:
    assert printable("naïve 日本 🎉") == "naïve 日本 🎉"


def test_a_listing_for_scripts_has_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("ID", "NAME"), [("1", "a\tb\nc")])

    assert capsys.readouterr().out == "id\tname\n1\ta b c\n"


@pytest.mark.parametrize("text", ["", "\n", "x" * 5000])
def test_a_secret_has_to_be_on_standard_input(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))

    with pytest.raises(InvalidInput):
        read_secret_line()


def test_only_the_end_of_its_line_is_no_part_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(" pass word \r\nmore"))

    assert read_secret_line() == " pass word "


def test_a_choice_is_asked_until_it_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("0\nx\n3\n²\n2\n"))

    assert choose("session", ["a", "b"]) == 1
    with pytest.raises(Unauthenticated):
        output.ask("again")
