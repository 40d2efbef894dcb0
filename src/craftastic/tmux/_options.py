"""The product's own tmux configuration, as arguments of one tmux command line."""

_BEGIN = """\
socket=$1 name=$2 directory=$3
shift 3
# The folder is private; what shells and agents make later has the sandbox's own modes.
(umask 077 && mkdir -p -- "$(dirname -- "$socket")") || exit
if tmux -N -u -S "$socket" has-session -t "=$name" 2>/dev/null </dev/null; then exit 0; fi
[ -d "$directory" ] || { echo "$directory is not there" >&2; exit 3; }
TERM=screen-256color
for place in /usr/share/terminfo /lib/terminfo /etc/terminfo; do
  [ -e "$place/t/tmux-256color" ] && TERM=tmux-256color
done
unset TMUX TMUX_PANE
# The server would keep open what it inherits, such as the other end of this command's output.
for fd in /proc/self/fd/*; do
  fd=${fd##*/}
  if (( fd > 2 )); then eval "exec $fd>&-"; fi
done
"""
SCRIPT = f"""{_BEGIN}\
tmux -u -S "$socket" -f /dev/null \\
  start-server ';' set-option -s default-terminal "$TERM" ';' "$@" && exit 0
# Somebody else was faster: that is what was asked for.
tmux -N -u -S "$socket" has-session -t "=$name" 2>/dev/null
"""
"""For bash. Constant: socket, name, directory and the rest of tmux's line are its arguments."""

MADE = "craftastic-made"
"""What tmux prints where it made the session itself."""

NOT_GIVEN = 4
"""The exit code when the session is there and its first process has not got what it was to have."""

SCRIPT_THAT_GIVES = f"""{_BEGIN}\
fifo=$1 words=$2
giving=("${{@:3:words}}")
shift $((2 + words))
mkfifo -m 600 -- "$fifo" || exit
trap 'rm -f -- "$fifo"' EXIT
# The input, which holds secrets, is not for tmux: a client hands its own to the server.
made=$(tmux -u -S "$socket" -f /dev/null \\
  start-server ';' set-option -s default-terminal "$TERM" ';' "$@" </dev/null)
if [[ $made == *{MADE}* ]]; then
  "${{giving[@]}}" || exit {NOT_GIVEN}
  exit 0
fi
# Somebody else was faster, and gives that session what it is to have.
tmux -N -u -S "$socket" has-session -t "=$name" 2>/dev/null </dev/null
"""
"""For bash. Constant: socket, name, directory, the fifo, the count and the words of the program
that gives what comes on its input, and the rest of tmux's line are its arguments.
"""

_SERVER = {
    "escape-time": "0",
    "exit-empty": "on",
    "exit-unattached": "off",
    "focus-events": "off",  # viewers report the focus by themselves
    "set-clipboard": "off",
    "extended-keys": "off",
    "buffer-limit": "10",
    "message-limit": "100",
}
_SESSION = {
    "prefix": "None",
    "prefix2": "None",
    "status": "off",
    "mouse": "off",
    "destroy-unattached": "off",
    "detach-on-destroy": "on",
    "default-shell": "/bin/bash",
    "default-command": "",
    "default-size": "80x24",
    "display-time": "1",
    "set-titles": "off",
    "update-environment": "",
    "bell-action": "none",
    "activity-action": "none",
    "silence-action": "none",
    "lock-after-time": "0",
    "renumber-windows": "off",
}
_WINDOW = {
    "window-size": "latest",
    "aggressive-resize": "off",
    "allow-rename": "off",
    "allow-passthrough": "off",
    "alternate-screen": "on",
    "automatic-rename": "off",
    "monitor-activity": "off",
    "monitor-bell": "off",
    "remain-on-exit": "off",
    "synchronize-panes": "off",
    # tmux answers programs that ask for the terminal's colours with these.
    "window-style": "fg=#d4d4d4,bg=#1e1e1e",
    "window-active-style": "default",
    "pane-border-status": "off",
    "mode-keys": "vi",
}

_HOOKS = (
    *("session-created", "session-closed", "session-renamed", "session-window-changed"),
    *("client-attached", "client-detached", "client-resized", "client-session-changed"),
    *(
        "window-linked",
        "window-unlinked",
        "window-renamed",
        "after-new-session",
        "after-new-window",
    ),
    *("after-set-option", "after-unbind-key", "after-set-environment", "after-list-panes"),
    *("after-list-sessions", "after-pipe-pane", "after-capture-pane", "after-display-message"),
    *("after-resize-window", "after-send-keys", "after-refresh-client", "after-rename-session"),
    *("after-set-hook", "after-run-shell", "after-kill-session", "command-error"),
)
_WINDOW_HOOKS = ("pane-died", "pane-exited", "pane-mode-changed", "window-layout-changed",
                 "window-pane-changed", "window-resized", "pane-focus-in", "pane-focus-out",
                 "pane-set-clipboard")  # fmt: skip
"""Hooks that what we do, or a session's life, would run: one that ends a session that was only
just made would keep a terminal from ever coming back."""


def options(history_lines: int) -> list[str]:
    """Return the commands that set every option that matters, for servers old and new.

    `-q`: an older tmux does not know all of them.
    """
    words = ["set-option", "-gq", "history-limit", str(history_lines)]
    for flags, table in (("-sq", _SERVER), ("-gq", _SESSION), ("-gwq", _WINDOW)):
        for name, value in table.items():
            words += [";", "set-option", flags, name, value]
    for one in without_hooks():
        words += [";", *one]
    words += [";", "set-environment", "-g", "COLORTERM", "truecolor"]
    return words


def without_hooks() -> list[list[str]]:
    """Return the commands, word by word, that forget every hook which would be in our way."""
    return [
        ["set-option", flags, name]
        for flags, hooks in (("-gqu", _HOOKS), ("-gwqu", _WINDOW_HOOKS))
        for name in hooks
    ]


NO_KEYS = [part for table in ("prefix", "root") for part in (";", "unbind-key", "-aq", "-T", table)]
"""No key is tmux's. At the end of a line only: where a table has gone already, tmux fails without
a word and drops what follows.
"""
