"""git's words for damage, locks and full disks are known; words like them are not taken for it."""

import pytest

from craftastic.worktrees._damage import LOCK_LEFT, damage_in, disk_full_in

ID = b"7b918ab40aa5d50f72687ff1264bbf094e7ca67a"


@pytest.mark.parametrize(
    "said",
    [
        b"error: inflate: data stream error (incorrect data check)",
        b"error: unable to unpack " + ID + b" header",
        b"fatal: loose object " + ID + b" (stored in objects/7b/918a) is corrupt",
        b"error: object file /home/dev/x/objects/7b/91 is empty",
        b"fatal: bad object HEAD",
        b"fatal: unable to read tree " + ID,
        b"error: Could not read " + ID,
        b"fatal: unable to read " + ID,
        b"error: packfile /r/objects/pack/p.pack does not match index",
        b"error: bad packed object CRC for " + ID,
        b"error: invalid object 100644 " + ID + b" for 'a.txt'",
        b"fatal: index file corrupt",
        b"error: bad signature 0xffffffff",
        b"fatal: bad config line 1 in file /r/config",
        b"fatal: unexpected line in /r/packed-refs: noise",
        b"warning: something else\nfatal: bad tree object HEAD\n",
    ],
)
def test_what_git_says_of_damage_is_known(said: bytes) -> None:
    assert damage_in(said)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"fatal: not a git repository (or any of the parent directories): .git",
        b"error: failed to push some refs to 'http://craftastic-gateway/git/x.git'",
        b"fatal: ambiguous argument 'x': unknown revision or path not in the working tree.",
        b"remote: fatal: bad object HEAD",
        b"the hook says: fatal: bad object HEAD",
        b"fatal: Unable to create '/r/index.lock': File exists.",
        b"error: Your local changes to the following files would be overwritten by merge:",
        b"fatal: early EOF\nfatal: fetch-pack: invalid index-pack output",
    ],
)
def test_what_is_no_damage_is_not_taken_for_it(said: bytes) -> None:
    assert not damage_in(said)


def test_the_lock_in_the_way_is_named() -> None:
    found = LOCK_LEFT.search(
        b"fatal: Unable to create '/r/refs/heads/a b.lock': File exists.\n\nAn"
    )

    assert found is not None
    assert found[1] == b"/r/refs/heads/a b.lock"


def test_a_full_disk_is_known_in_what_git_says() -> None:
    assert disk_full_in("error: file write error: No space left on device fatal: write error")
    assert disk_full_in("fatal: write error: Disk quota exceeded")
    assert not disk_full_in("fatal: write error: Broken pipe")
