"""Traps for a credential, set in a sandbox by its own user: all that such a user can do to git.

`ARM` sets those that let honest work go on: hooks, a `git` before the real one that shows the real
one's requests, helpers that are asked for passwords, settings that lead elsewhere, and a watcher of
all processes. `DETOURS` are those that send git to an attacker; they are set one after another.
"""

import base64
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness import Viewer

TRAP = Path(__file__).parents[1] / "fakes" / "trap.py"
CAUGHT = "~/trap/caught"
PIECE = 2500
"""Characters of base64 typed at once; a line may have 4096."""

HOOKS = (
    "pre-push", "reference-transaction", "post-checkout", "pre-commit", "prepare-commit-msg",
    "commit-msg", "post-commit", "post-merge", "post-rewrite", "pre-rebase", "post-index-change",
    "pre-auto-gc",
)  # fmt: skip

ARM = """
set -eu
upstream=$1 hooks=$2
trap=$HOME/trap
mkdir -p "$trap/caught" "$HOME/.local/bin"
export PATH=/usr/bin:/bin
cat >"$trap/hook" <<'END'
#!/bin/sh
input=
[ -t 0 ] || input=$(cat)
printf '%s\\n' "$input" | python3 ~/trap/trap.py dump "hook-${0##*/}" "$@"
if [ -x "$0.own" ]; then printf '%s\\n' "$input" | "$0.own" "$@"; fi
END
cat >"$trap/askpass" <<'END'
#!/bin/sh
python3 ~/trap/trap.py dump askpass "$@" </dev/null
echo guess
END
cat >"$trap/ssh" <<'END'
#!/bin/sh
exec python3 ~/trap/trap.py dump ssh "$@"
END
cat >"$trap/monitor" <<'END'
#!/bin/sh
python3 ~/trap/trap.py dump monitor "$@" </dev/null
exit 1
END
cat >"$HOME/.local/bin/git" <<'END'
#!/bin/sh
{ printf '== git %s\\n' "$*"; export -p; } >>~/trap/caught/before-git 2>&1
export GIT_TRACE=$HOME/trap/caught/trace GIT_TRACE_CURL=$HOME/trap/caught/curl GIT_TRACE_REDACT=0
exec /usr/bin/git "$@"
END
chmod 755 "$trap/hook" "$trap/askpass" "$trap/ssh" "$trap/monitor" "$HOME/.local/bin/git"

repo=$(git rev-parse --path-format=absolute --git-common-dir)
for hook in $hooks; do
    if [ -e "$repo/hooks/$hook" ]; then mv "$repo/hooks/$hook" "$repo/hooks/$hook.own"; fi
    cp "$trap/hook" "$repo/hooks/$hook"
done

rm -f "$trap/ports"
setsid nohup python3 "$trap/trap.py" watch >/dev/null 2>&1 &
setsid nohup python3 "$trap/trap.py" listen >"$trap/log" 2>&1 &
tries=300
while [ ! -e "$trap/ports" ]; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { cat "$trap/log"; exit 1; }
    sleep 0.1
done
read -r asking forwarding <"$trap/ports"

git config core.fsmonitor "$trap/monitor"
git config --global credential.helper '!python3 ~/trap/trap.py dump credential-helper'
git config --global core.askPass "$trap/askpass"
git config --global core.sshCommand "$trap/ssh"
git config --global http.proxy "http://127.0.0.1:$asking"
git config --global http.extraHeader 'X-Trap: set'
git config --global trace2.eventTarget "$trap/caught/trace2"
git config --global trace2.configParams '*'
git config --global "url.http://127.0.0.1:$asking/.insteadOf" "$upstream"
git config --global --add "url.http://127.0.0.1:$asking/.insteadOf" https://github.com/
echo ar''med $asking $forwarding
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where in the sandbox the attacker listens.

    Args:
        asking: Asks everybody for a password.
        forwarding: A proxy that does its work, and keeps what it sees.
    """

    asking: int
    forwarding: int


@dataclass(frozen=True, slots=True)
class Detour:
    """A setting that leads git to the attacker, and what of it springs then."""

    name: str
    setting: tuple[str, str]
    springs: tuple[str, ...]


def detours(gateway: str, ports: Ports) -> list[Detour]:
    """List them.

    Args:
        gateway: Where the sandbox's `origin` is: scheme, host, port, and a slash.
        ports: The attacker's.
    """
    attacker = f"http://127.0.0.1:{ports.asking}/"
    return [
        Detour("insteadOf", (f"url.{attacker}.insteadOf", gateway), ("heard-asking",)),
        Detour("pushInsteadOf", (f"url.{attacker}.pushInsteadOf", gateway), ("heard-asking",)),
        Detour("proxy", ("remote.origin.proxy", attacker), ("heard-asking",)),
        Detour(
            "pushurl",
            ("remote.origin.pushurl", f"{attacker}x.git"),
            ("heard-asking", "askpass", "credential-helper"),
        ),
        Detour("ssh", ("url.ssh://git@127.0.0.1/.pushInsteadOf", gateway), ("ssh",)),
    ]


async def arm(viewer: Viewer, upstream: str) -> Ports:
    """Set all traps that let honest work go on, in the sandbox and repository of a terminal.

    Args:
        viewer: Attached; its shell is in a worktree.
        upstream: Where the true upstream is: scheme, host, port, and a slash.
    """
    await viewer.run("mkdir -p ~/trap")
    await _put(viewer, TRAP.read_bytes(), "~/trap/trap.py")
    await _put(viewer, ARM.encode(), "/tmp/arm")
    said = await viewer.run(f"sh /tmp/arm {upstream} '{' '.join(HOOKS)}'", timeout_s=60)
    word, _, ports = (said.strip().splitlines() or [""])[-1].partition(" ")
    assert word == "armed", said
    asking, forwarding = map(int, ports.split())
    # What a person's own start-up files would do.
    await viewer.run("export GIT_ASKPASS=~/trap/askpass SSH_ASKPASS=~/trap/askpass; hash -r")
    return Ports(asking, forwarding)


async def _put(viewer: Viewer, content: bytes, path: str) -> None:
    text = base64.b64encode(content).decode()
    await viewer.run("rm -f /tmp/piece; touch /tmp/piece")
    for start in range(0, len(text), PIECE):
        await viewer.run(f"printf %s {text[start : start + PIECE]} >>/tmp/piece")
    await viewer.run(f"base64 -d /tmp/piece >{path}; rm /tmp/piece")
