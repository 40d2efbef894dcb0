"""Which tmux session is which, from what tmux lists."""

from craftastic.tmux._names import Listed, listed, naming_back


def after(found: list[Listed]) -> dict[str, str]:
    """Do what the words say, as tmux does, and return the names by id."""
    names = {one.id: one.name for one in found}
    words = naming_back(found)
    for at in range(0, len(words), 5):
        command, flag, which, name = words[at : at + 4]
        assert (command, flag) == ("rename-session", "-t")
        assert name not in names.values(), "tmux refuses a name that is taken"
        names[which] = name
    return names


def test_sessions_that_nobody_renamed_are_left_alone() -> None:
    assert naming_back(listed("$0 one-1 one-1\n$3  of the user\n")) == []


def test_session_that_was_renamed_gets_its_name_back() -> None:
    found = listed("$0 one-1 mine\n$3 two-2 two-2\n$4  other")

    assert after(found) == {"$0": "one-1", "$3": "two-2", "$4": "other"}


def test_exchanged_names_are_changed_back() -> None:
    found = listed("$0 one-1 two-2\n$1 two-2 one-1")

    assert after(found) == {"$0": "one-1", "$1": "two-2"}


def test_stranger_who_took_a_name_gives_it_up() -> None:
    names = after(listed("$0 one-1 mine\n$1  one-1"))

    assert names["$0"] == "one-1"
    assert names["$1"] not in {"one-1", "mine"}


def test_of_several_with_one_mark_the_one_with_its_name_keeps_it() -> None:
    assert naming_back(listed("$0 one-1 mine\n$7 one-1 one-1")) == []
    assert after(listed("$9 one-1 a\n$7 one-1 b")) == {"$9": "a", "$7": "one-1"}


def test_marks_and_lines_that_are_not_ours_say_nothing() -> None:
    text = "$0 a;b c\nnothing\n$1 x: mine\n$2 -t kill name with spaces"

    assert listed(text) == [
        Listed("$0", "", "c"),
        Listed("$1", "", "mine"),
        Listed("$2", "", "spaces"),
    ]
