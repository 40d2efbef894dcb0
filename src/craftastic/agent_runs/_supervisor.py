"""The first process of an agent session's pane: it runs the agent's CLI and tells how that does.

Its text and those of its parts, `_supervisor_*`, are sent to the sandbox's python3: they import
nothing else of this project. `LAUNCH` is what `programs.Launch` says, `RUN_DIR` the sandbox's
private folder for sockets.

The CLI owns the terminal: it runs in a process group of its own in the foreground, with its keys
and its window's size straight from the kernel, and nothing here reads or writes the terminal as
long as it lives. Hooks of the CLI speak to a unix socket, RUN_DIR/agent-SESSION.sock: one line of
JSON in, one out.

- {"op": "event", "event": NAME, "payload": {...}} is told to the gateway. The answer,
  {"answer": text}, comes at once, for the one event that asks when somebody has answered it.
- {"op": "idle?"} is answered with {"idle", "last"}: whether the last event of the agent itself says
  that it waits for a prompt, and the process group that sent it still owns the terminal.
- {"op": "state"} is answered with what is going on here.

Every program in the sandbox can say what it likes here; it only ever concerns this session. What it
costs is bounded: connections, the length of a line, how many asks wait, and the queue to the
gateway, which loses its oldest events of hooks when it is full and never what is told from here
(`craftastic:…`, names that no hook can use).

Files of a login that must be in the sandbox lie in memory, in a folder that goes with the end of
the CLI or of this program, whichever comes first.
"""

import errno
import os
import signal
import socket
import threading
import time
import warnings
from pathlib import Path

from craftastic.agent_runs._supervisor_door import Door
from craftastic.agent_runs._supervisor_files import Files, NoMemory
from craftastic.agent_runs._supervisor_reports import OWN, Json, Reports
from craftastic.agent_runs._supervisor_terminal import (
    IGNORED,
    WAITED,
    Ended,
    Pane,
    found,
    how,
    say,
)

LAST_WORDS_S = 1.5
PREDECESSOR_S, PAUSE_S = 8.0, 0.02


class Supervisor:
    """One pane's life: the CLI, then a shell."""

    def __init__(self, launch: Json, run_dir: str) -> None:
        self.launch = launch
        self.pane = Pane()
        self.reports = Reports(launch)
        self.files = Files(launch, run_dir)
        path = f"{run_dir}/agent-{launch['session']}.sock"
        self.door = Door(path, launch, self.reports)
        own = dict(os.environ)  # noqa: TID251 - the sandbox's
        self.env: dict[str, str] = {**own, **launch["env"], "CRAFTASTIC_AGENT_SOCKET": path}
        self.env["CRAFTASTIC_AGENT_ASK"] = launch["ask_event"] or ""

    def run(self) -> int:
        """Run the CLI and then a shell; return the pane's exit code."""
        try:
            self.agent()
            return self.shell()
        except Ended:
            return 128 + signal.SIGHUP
        finally:
            self.files.close()
            self.door.close()
            self.reports.flush(LAST_WORDS_S)

    def agent(self) -> None:
        """Run the CLI to its end and say how that was; or say why it does not run."""
        title = self.launch["title"]
        program = found(self.launch["argv"][0], self.env)
        if program is None:
            say(*self.launch["missing"].split("\n"))
            self.told("missing", {"command": self.launch["argv"][0]})
            return
        try:
            self.files.write()
            argv = [self.files.placed(word) for word in self.launch["argv"]]
            self.env = {name: self.files.placed(value) for name, value in self.env.items()}
            child = self.pane.start(program, argv, self.launch["cwd"], self.env)
        except NoMemory:
            say(
                f"[{title} was not started: its login file must be in memory only,"
                " and no folder of this sandbox is.]"
            )
            self.told("exited", {"code": 126, "reason": "no_memory"})
            return
        except OSError as error:
            say(f"[{title} could not be started: {error.strerror}.]")
            self.told("exited", {"code": 126, "reason": errno.errorcode.get(error.errno or 0, "")})
            return
        finally:
            if not self.files.watched:
                self.files.done.set()
        self.door.running = True
        self.told("started", {"pid": child})
        if self.files.links or self.files.watched:
            threading.Thread(target=self.files.run, daemon=True).start()
        self.supervised(child)

    def supervised(self, child: int) -> None:
        try:
            status = self.pane.wait(child)
        except Ended:
            status = self.pane.end(child)
            self.ended(how(status))
            self.files.done.wait(LAST_WORDS_S)
            raise
        self.ended(how(status))
        self.pane.restore()
        self.say_goodbye(how(status))

    def ended(self, end: Json) -> None:
        self.files.close()
        self.door.agent_ended()
        self.reports.put(f"{OWN}exited", end)

    def say_goodbye(self, end: Json) -> None:
        code = f"exit code {end['code']}" if "code" in end else name_of(end["signal"])
        resume = self.launch["resume"]
        if "{conversation}" in resume:
            conversation = self.door.conversation
            resume = resume.replace("{conversation}", conversation) if conversation else ""
        hint = f" To go on with the conversation: {resume}" if resume else ""
        say("", f"[{self.launch['title']} ended ({code}). This shell goes on here.{hint}]")

    def told(self, what: str, payload: Json) -> None:
        """Tell what happened here, and begin to tell and to hear."""
        if what != "started":
            self.files.close()
            self.door.last = f"{OWN}{what}"
        self.reports.put(f"{OWN}{what}", payload)
        for run in (self.reports.run, self.door.run):
            threading.Thread(target=run, daemon=True).start()

    def failed(self, what: threading.ExceptHookArgs) -> None:
        """Keep quiet about a fault, the terminal is the CLI's; `state` tells it."""
        self.door.failed = getattr(what.exc_type, "__name__", "")

    def shell(self) -> int:
        """Run a login shell as tmux would, and end with it."""
        path = self.env.get("SHELL") or "/bin/bash"
        name = "-" + path.rpartition("/")[2]  # how a login shell is called. Source: tmux, spawn.c
        cwd = self.launch["cwd"] if Path(self.launch["cwd"]).is_dir() else "/"
        child = self.pane.start(path, [name], cwd, self.env)
        self.door.shell = child
        try:
            status = self.pane.wait(child)
        except Ended:
            self.pane.end(child)
            raise
        return max(0, os.waitstatus_to_exitcode(status))


def name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # some have none
        return f"signal {number}"


def alone(session: str) -> socket.socket:
    """Wait until an earlier supervisor of this session has ended, which may still tidy up.

    Returns what tells the next one to wait; it goes with this process.
    """
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    end = time.monotonic() + PREDECESSOR_S
    while time.monotonic() < end:
        try:
            held.bind(f"\0craftastic-agent-{session}")
        except OSError:
            time.sleep(PAUSE_S)
        else:
            break
    return held


def main(launch: Json, run_dir: str) -> None:
    """Run the pane; this process ends here, whatever its threads still wait for."""
    for one in IGNORED:
        signal.signal(one, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
    held = alone(launch["session"])
    supervisor = Supervisor(launch, run_dir)
    threading.excepthook = supervisor.failed
    # Between fork and exec nothing runs that another thread could hold up.
    warnings.simplefilter("ignore", DeprecationWarning)
    status = supervisor.run()
    held.close()
    os._exit(status)


if __name__ == "__main__":
    main(globals()["LAUNCH"], globals()["RUN_DIR"])
