"""Which of git's words tell of damage, of a lock that was left, or of a full disk. Pure.

Scripts run git with `LC_ALL=C`: its words are the same everywhere. Hooks and filters of a
repository may print the same, so only beginnings of lines count, and all that follows is a way on.
"""

import re

_DAMAGE = re.compile(
    rb"^(?:error|fatal|warning): (?:"
    rb"(?:loose )?object (?:file )?.*(?:is empty|is corrupt|corrupt or missing)"
    rb"|inflate: |unable to (?:unpack|parse) \S+ header|garbage at end of loose object"
    rb"|corrupt loose object|(?:bad|corrupt) packed object|packed object .* is corrupt"
    rb"|packfile .* (?:cannot be|does not match|is far too short|is truncated|index unavailable)"
    rb"|file .*\.(?:pack|idx) is (?:not a |far too |corrupt)|index file .* is too small"
    rb"|(?:wrong|bad) (?:index|pack)|failed to (?:read|unpack) (?:delta|object|compressed|tree)"
    rb"|unable to read (?:tree |sha1 file of |[0-9a-f]{40})|missing (?:blob|tree|commit|object)"
    rb"|(?:could not|cannot|unable to) (?:read|parse|get|load) (?:[a-z]+ )?[0-9a-f]{40}"
    rb"|(?:could not|cannot) (?:parse|read) (?:commit|HEAD|object|tree)|bad (?:object|tree) "
    rb"|invalid object|invalid (?:sha1|object) pointer|invalid HEAD|unable to find all commit-graph"
    rb"|(?:your )?current branch appears to be broken|bad (?:signature 0x|index file|config line)"
    rb"|index file (?:corrupt|smaller)|index uses .* extension|unexpected line in .*packed-refs"
    rb"|bad ref |broken ref|refs/\S+ does not point to a valid object|failed to traverse parents"
    rb"|revision walk setup failed|unable to read tree|reference broken"
    rb"|commit-graph .*(?:corrupt|signature|checksum)|multi-pack-index .*(?:signature|corrupt)"
    rb")",
    re.MULTILINE | re.IGNORECASE,
)
LOCK_LEFT = re.compile(rb"[Uu]nable to create '([^'\n]{1,400}\.lock)': File exists")
"""The lock that git found in its way; its first group is the file."""

_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")


def damage_in(said: bytes) -> bool:
    """Tell whether git said that something in the repository cannot be read."""
    return _DAMAGE.search(said) is not None


def disk_full_in(said: str) -> bool:
    """Tell whether git said that there is no room on the disk."""
    return _DISK_FULL.search(said) is not None
