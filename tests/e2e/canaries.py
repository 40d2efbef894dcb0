"""Programs hidden in a repository and in a home in every known way, which tell when they run.

Each canary has a name. When its program runs, it writes the name and the namespaces that it runs
in to the folder that it sits in, the perch. The host has a perch, writable for everybody, and a
sandbox gets one of the same path in its own /var/tmp: a program that a server would run on the
host writes on the host, whatever name it was found by.
"""

import base64
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SING = """#!/bin/sh
# The canary's name, its manner, and the arguments of the program that it stands for.
name=$1 manner=$2
shift 2
echo $name $(/usr/bin/readlink /proc/self/ns/pid /proc/self/ns/mnt) 2>/dev/null >>{perch}/sung
if [ -e {perch}/rude ] && [ "$manner" != real ]; then
	printf '\\033]0;x\\007\\377\\n%s\\n' "$name does not do what it should"
	exit 1
fi
case $manner in
cat) exec /usr/bin/cat -- "$@" ;;
run) exec "$@" ;;
gpg)
	/usr/bin/cat >/dev/null
	printf '\\n[GNUPG:] SIG_CREATED D 1 8 00 0 0\\n' >&2
	printf -- '-----BEGIN PGP SIGNATURE-----\\n\\nx\\n-----END PGP SIGNATURE-----\\n'
	;;
real)
	real=$1
	shift
	if [ -e {perch}/lying ]; then exec {perch}/lie "$@"; fi
	exec "$real" "$@"
	;;
esac
exit 0
"""
LIE = """#!/bin/sh
# Answers in the form that the server's scripts have: their mark is the word after the name.
mark=${4:-x}
for field in commit branch before after head upstream operation default count counts status; do
	printf '%s - %s %s\\n' "$mark" "$field" '../../../../etc/passwd 99999999999999999999 \\377'
done
parts='status files patch counts lines commits unpushed refs before after said stdout stderr'
for part in $parts; do
	printf '%s %s\\n' "$mark" "$part"
	printf '1 R. N... 1 2 3 4 5 R999999999999999999999 ../x\\0\\0\\0'
	printf -- '-\\t9999999999999999999999\\t\\0? /etc/x\\0\\377'
	printf '\\n%s = %s\\n' "$mark" 0
done
printf 'ref ../../x\\ncreated yes\\nfresh yes\\nstart ../../x\\npath /etc\\nunpushed 9e9\\n'
[ ! -e PERCH/refusing ] || { printf 'no_such_refusal\\n\\377\\n'; exit 40; }
"""

QUIET, CAT, GPG, RUN = "quiet", "cat", "gpg", "run"

CONFIG = {
    # What git runs when it looks, commits, fetches or pushes.
    "core.fsmonitor": QUIET, "core.sshCommand": QUIET, "core.editor": QUIET, "core.pager": CAT,
    "core.askPass": QUIET, "core.gitProxy": QUIET, "core.alternateRefsCommand": QUIET,
    "sequence.editor": QUIET, "diff.external": QUIET, "diff.canary.command": QUIET,
    "diff.canary.textconv": CAT, "merge.canary.driver": QUIET, "filter.canary.clean": CAT,
    "filter.canary.smudge": CAT, "filter.stream.process": QUIET, "gpg.program": GPG,
    "gpg.openpgp.program": GPG, "gpg.x509.program": GPG, "gpg.ssh.program": QUIET,
    "gpg.ssh.defaultKeyCommand": QUIET, "interactive.diffFilter": CAT, "credential.helper": QUIET,
    "credential.http://craftastic-gateway.helper": QUIET, "trailer.canary.command": QUIET,
    "trailer.other.cmd": QUIET, "gc.recentObjectsHook": QUIET, "hook.canary.command": QUIET,
    # What it runs when a person asks for it.
    "difftool.canary.cmd": QUIET, "mergetool.canary.cmd": QUIET, "web.browser": QUIET,
    "browser.canary.cmd": QUIET, "browser.canary.path": QUIET, "man.canary.cmd": QUIET,
    "man.canary.path": QUIET, "guitool.canary.cmd": QUIET, "instaweb.httpd": QUIET,
    "sendemail.smtpServer": QUIET, "sendemail.toCmd": QUIET, "imap.tunnel": QUIET,
    "uploadpack.packObjectsHook": RUN, "remote.near.uploadpack": QUIET,
    "remote.near.receivepack": QUIET, "remote.origin.uploadpack": QUIET,
    "remote.origin.receivepack": QUIET, "tar.canary.command": CAT,
    **{f"pager.{one}": CAT for one in
       ("status", "diff", "log", "branch", "show", "worktree", "fetch", "rev-list", "ls-files",
        "for-each-ref", "config", "commit", "push", "merge-base", "diff-tree", "rev-parse")},
}  # fmt: skip
"""Settings whose value is a program, and how the program behaves."""

ALIASES = (
    "status", "diff", "log", "commit", "push", "fetch", "pull", "add", "worktree", "rev-parse",
    "rev-list", "ls-files", "for-each-ref", "symbolic-ref", "update-ref", "merge-base", "canary",
)  # fmt: skip
HOOKS = (
    "applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "pre-merge-commit",
    "prepare-commit-msg", "commit-msg", "post-commit", "pre-rebase", "post-checkout", "post-merge",
    "pre-push", "pre-receive", "update", "proc-receive", "post-receive", "post-update",
    "reference-transaction", "push-to-checkout", "pre-auto-gc", "post-rewrite",
    "sendemail-validate", "fsmonitor-watchman", "p4-changelist", "p4-prepare-changelist",
    "p4-post-changelist", "p4-pre-submit", "post-index-change",
)  # fmt: skip
PROGRAMS = {
    **{name: f"/usr/bin/{name}" for name in
       ("git", "tmux", "sh", "bash", "python3", "timeout", "head", "mktemp", "flock", "date",
        "ssh", "less", "gpg")},
    **{name: f"/usr/lib/git-core/{name}" for name in
       ("git-remote-http", "git-remote-ext", "git-remote-canary", "git-canary")},
}  # fmt: skip
"""Programs that come first on the sandbox's search path, and what each stands for."""

PYTHONS = range(9, 16)
"""Minor versions of Python 3 that a sandbox may have."""

ATTRIBUTES = """* diff=canary merge=canary
*.txt filter=canary
*.dat filter=stream
"""
CRAFTASTIC = """[worktree]
copy = ["../../../../etc/passwd", "/etc/passwd", "../../*", "**/.git/config", "linked/*"]
setup = ["{perch}/sing worktree.setup quiet", "echo $(cat linked-file)"]
teardown = "{perch}/sing worktree.teardown quiet"
setup_timeout = 20
[commands]
dev = "{perch}/sing worktree.command quiet; exec sleep 600"
"""
INCLUDE = "../../../../../etc/passwd\n/etc/shadow\n../*\n..\n*\n!*\n.git\n**/config\nlinked/*\n"


@dataclass(frozen=True)
class Victims:
    """Files of the host that links in a sandbox lead to: writable for everybody, never touched."""

    folder: Path
    secret: str

    def make(self) -> None:
        for name in ("folder", "folder/below", "repo.git", "repo.git/hooks"):
            (self.folder / name).mkdir(parents=True)
        for name in (
            "file",
            "folder/kept",
            "folder/below/kept",
            "repo.git/HEAD",
            "repo.git/config",
        ):
            (self.folder / name).write_text(f"{self.secret}\n")
        for one in (self.folder, *self.folder.rglob("*")):
            one.chmod(0o777 if one.is_dir() else 0o666)

    def state(self) -> dict[str, tuple[int, int, str]]:
        return state_of(self.folder)


def state_of(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return mode, owner and content of everything in a folder, by its name."""
    found: dict[str, tuple[int, int, str]] = {}
    for one in (folder, *sorted(folder.rglob("*"))):
        status = one.lstat()
        content = ""
        if one.is_symlink():
            content = os.readlink(one)  # noqa: PTH115
        elif one.is_file():
            content = hashlib.sha256(one.read_bytes()).hexdigest()
        found[str(one.relative_to(folder))] = (status.st_mode, status.st_uid, content)
    return found


@dataclass(frozen=True)
class Sung:
    """A canary that ran, and the process and mount namespaces that it ran in."""

    name: str
    pid: str
    mnt: str


@dataclass(frozen=True)
class Perch:
    """The folder of the canaries, here and in sandboxes."""

    folder: Path

    def files(self) -> dict[str, str]:
        """Return what it consists of: programs, by their path in the folder."""
        perch = str(self.folder)
        files = {"sing": SING.format(perch=perch), "lie": LIE.replace("PERCH", perch)}
        for scope in ("repo", "home", "xdg", "included", "matched"):
            for key, manner in CONFIG.items():
                files[_program(scope, key)] = self._wrapper(f"{scope}.{key}", manner)
            for one in ALIASES:
                files[_program(scope, f"alias.{one}")] = self._wrapper(
                    f"{scope}.alias.{one}", QUIET
                )
        for place in ("hooks", "elsewhere", "template/hooks"):
            for one in HOOKS:
                where = place.partition("/")[0]
                files[f"{place}/{one}"] = self._wrapper(f"{where}.{one}", QUIET)
        for one, real in PROGRAMS.items():
            files[f"bin/{one}"] = self._wrapper(f"path.{one}", f"real {real}")
        for one in ("ext", "submodule", "instead"):
            files[f"is/{one}"] = self._wrapper(one, QUIET)
        return files

    def _wrapper(self, name: str, manner: str) -> str:
        return f'#!/bin/sh\nexec {self.folder}/sing "{name}" {manner} "$@"\n'

    def make(self) -> None:
        """Make it on the host."""
        for name, text in self.files().items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755)
        self.folder.chmod(0o777)

    def sung_on_the_host(self) -> list[str]:
        """Return what ran on the host, and whatever else appeared in the folder."""
        expected = set(self.files())
        found = [
            str(one.relative_to(self.folder))
            for one in self.folder.rglob("*")
            if not one.is_dir() and str(one.relative_to(self.folder)) not in expected
        ]
        file = self.folder / "sung"
        return found + (file.read_text().splitlines() if file.exists() else [])

    def config(self, scope: str) -> str:
        """Return the text of a configuration of git that runs every program of a scope."""
        values = {key: str(self.folder / _program(scope, key)) for key in CONFIG}
        if scope != "repo":  # git complains each time that there is more than one
            values = {key: value for key, value in values.items() if "remote." not in key}
        for one in ALIASES:
            values[f"alias.{one}"] = f"!{self.folder / _program(scope, f'alias.{one}')}"
        values |= {
            "merge.canary.driver": f"{values['merge.canary.driver']} %O %A %B",
            "user.name": "A person",
            "user.email": "person@example.com",
            "commit.gpgSign": "true",
            "tag.gpgSign": "true",
            "push.gpgSign": "if-asked",
            "protocol.ext.allow": "always",
            "remote.far.url": f"ext::{self.folder}/is/ext x",
            "remote.near.url": "/home/dev/other.git",
            "diff.tool": "canary",
            "merge.tool": "canary",
            "man.viewer": "canary",
            "help.browser": "canary",
            "hook.canary.event": "pre-commit",
            "submodule.sub.update": f"!{self.folder}/is/submodule",
            "submodule.sub.url": f"ext::{self.folder}/is/submodule x",
            "submodule.sub.active": "true",
            "init.templateDir": str(self.folder / "template"),
            "receive.procReceiveRefs": "refs",
            "receive.denyCurrentBranch": "updateInstead",
        }
        includes = {
            "include.path": f"{self.folder}/config-included",
            "includeIf.gitdir:/.path": f"{self.folder}/config-matched",
            "includeIf.onbranch:**.path": f"{self.folder}/config-matched",
        }
        if scope not in ("included", "matched"):
            # First: of two values the later one counts.
            values = includes | values
        return "".join(_setting(key, value) for key, value in values.items())

    def furnish(self) -> bytes:
        """Return a tar file for a sandbox's root: its own perch, and everything in its home."""
        files = {f"{self.folder}/{name}": text for name, text in self.files().items()}
        for scope in ("included", "matched"):
            files[f"{self.folder}/config-{scope}"] = self.config(scope)
        home = {
            ".gitconfig": self.config("home"),
            ".config/git/config": self.config("xdg"),
            ".config/git/attributes": ATTRIBUTES,
            ".tmux.conf": f"run-shell '{self.folder}/sing home.tmux.conf quiet'\n",
            ".config/tmux/tmux.conf": f"run-shell '{self.folder}/sing home.tmux.xdg quiet'\n",
            ".ssh/config": f"Host *\n\tProxyCommand {self.folder}/sing home.ssh quiet\n",
        }
        for one in (".bashrc", ".profile", ".bash_profile", ".bash_logout", ".bash-env"):
            home[one] = f"{self.folder}/sing home{one} quiet\n"
        home[".bash_profile"] += (
            ". ~/.profile; . ~/.bashrc; export BASH_ENV=$HOME/.bash-env ENV=$HOME/.bash-env\n"
        )
        for minor in PYTHONS:
            site = f".local/lib/python3.{minor}/site-packages"
            home[f"{site}/usercustomize.py"] = self._python("home.usercustomize")
            home[f"{site}/canary.pth"] = self._python("home.pth")
        home |= {f".local/bin/{one}": files[f"{self.folder}/bin/{one}"] for one in PROGRAMS}
        return packed({**files, **{f"/home/dev/{name}": text for name, text in home.items()}})

    def _python(self, name: str) -> str:
        words = f"{self.folder}/sing {name} quiet"
        return f"import os; os.system({words!r})\n"

    def plant(self) -> str:
        """Return a script for a sandbox that plants in a worktree and its repository.

        Its arguments: the repository, the worktree, a folder of the host.
        """
        lines = [
            "repo=$1 path=$2 victims=$3; set -e; cd $path",
            _written("$repo/config.canaries", self.config("repo")),
            "cat $repo/config.canaries >>$repo/config",
            _written("$repo/info/attributes", ATTRIBUTES),
            f"cp {self.folder}/hooks/* $repo/hooks/; chmod 755 $repo/hooks/*",
            "git init -q --bare --template= ~/other.git",
            "cat $repo/config.canaries >>~/other.git/config; cp -r $repo/hooks ~/other.git/",
            # A link for each kind of file that somebody might open: all lead to the host.
            "ln -sfn $victims/file linked-file; ln -sfn $victims/folder linked",
            "ln -sfn $victims/file $repo/refs/heads/linked",
            "mkdir -p $repo/objects/info",
            "echo $victims/repo.git/objects >$repo/objects/info/alternates",
            "for one in description shallow.lock; do ln -sfn $victims/file $repo/$one; done",
            "ln -sfn $victims/folder ~/workspace-link; ln -sfn / root",
            "mkdir -p other sub; echo gitdir: $HOME/other.git >other/.git",
            _written(
                ".gitmodules",
                f'[submodule "sub"]\n\tpath = sub\n\turl = ext::{self.folder}/is/submodule x\n'
                f"\tupdate = !{self.folder}/is/submodule\n",
            ),
            # In tmux, for every session that begins after this.
            'tmux() { /usr/bin/tmux -S /run/craftastic/tmux.sock "$@"; }',
            "tmux set-environment -g BASH_ENV $HOME/.bash-env",
            f"tmux set-hook -g session-created \"run-shell '{self.folder}/sing tmux.hook quiet'\"",
        ]
        return "\n".join(lines)


def upstream_files(perch: Path) -> dict[str, str]:
    """Return what the repository itself has, as its author pushed it."""
    return {
        "a.txt": "one\n",
        ".gitattributes": ATTRIBUTES,
        ".gitignore": "ignored\n*.ignored\nlinked/\n",
        ".worktreeinclude": INCLUDE,
        ".craftastic/config.toml": CRAFTASTIC.format(perch=perch),
    }


def packed(files: Mapping[str, str]) -> bytes:
    """Return a tar file of programs, by their absolute paths."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(text.encode()), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


def _program(scope: str, key: str) -> str:
    return f"is/{scope}.{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _setting(key: str, value: str) -> str:
    section, _, rest = key.partition(".")
    middle, _, name = rest.rpartition(".")
    title = f'{section} "{middle}"' if middle else section
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'[{title}]\n\t{name} = "{quoted}"\n'


def _written(name: str, text: str) -> str:
    """Return a line of a script that writes a file, making its folder."""
    encoded = base64.b64encode(text.encode()).decode()
    return f"mkdir -p $(dirname {name}); echo {encoded} | base64 -d >{name}"


PERSON = r"""
# What a person would do: git as it comes, which runs whatever it is told to.
perch=$1 path=$2
cd "$path"
unset GIT_CONFIG_GLOBAL
export PATH="$HOME/.local/bin:$PATH"
try() { timeout -k 1 10 "$@" </dev/null >/dev/null 2>&1 || true; }
real=/usr/bin/git
echo more >>a.txt
try $real status
try $real -p diff
try $real diff --ext-diff
try $real -c diff.external= diff --textconv
try $real -p log -1
try $real add a.txt
try $real commit -m one
try $real commit --amend
try $real -c core.hooksPath= rebase -i HEAD~1
try $real difftool -y HEAD~1
try $real canary
try $real fetch far
try $real fetch near
try $real push near HEAD
try $real ls-remote ssh://localhost/x
try $real ls-remote git://localhost/x
try $real submodule update --init
try $real web--browse http://localhost/
try $real help -m git
try $real init ../initialised
try $real -C ../initialised commit --allow-empty -m x
try $real interpret-trailers --trailer canary=1 a.txt
try $real tag -s -m x tagged
try $real -c commit.gpgSign=false commit --allow-empty -m x
try $real stash
try $real checkout -f HEAD
try $real merge --no-ff tagged
try $real archive --format=canary HEAD
wanted='protocol=http\nhost=craftastic-gateway\n\n'
printf "$wanted" | timeout 10 $real credential fill >/dev/null 2>&1
try $real -c protocol.ext.allow=always clone "ext::$perch/is/ext x" ../cloned
try $real -c remote.origin.vcs=canary fetch origin
try $real -c "url.ext::$perch/is/instead x.insteadOf=http://" fetch origin
try bash -lc :
try bash -ic :
try env BASH_ENV=$HOME/.bash-env bash -c :
try python3 -c ''
try tmux -L person new-session -d
try tmux -L person kill-server
rm -rf -- ../initialised
exit 0
"""
