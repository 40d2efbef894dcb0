#!/usr/bin/env python3
"""A scripted CLI of a coding agent, for tests: it draws a small screen and obeys its prompts.

One file for any python3, as it runs inside sandboxes. It is started like Claude Code, calls the
hooks of the settings file that it is given in that shape, and knows these prompts:

say X                     says X
work N                    takes N steps; step K begins when a file go-K is there (in the folder of
                          FAKE_AGENT_GATES, else the current one), which it removes
ask permission: CMD       wants to run CMD: the terminal's y or n, or the hook's answer, decides
subagent                  starts a subagent that uses a tool
subagent asks: CMD        starts one that wants to run CMD
question                  asks something: 1 or 2 answers
fail KIND                 its model fails like that
exit N, crash             ends; crash does so in the middle, on the alternate screen
title                     sets the title and rings the bell
model TEXT                asks the model API that its environment names, once
refresh login [by rename] writes its login file anew
env                       shows what secrets it can see
size, suspend             shows the terminal's size; stops itself

Escape interrupts what it does. Ctrl-C interrupts too, and ends it where it does nothing; Ctrl-Z
stops it.
"""

# It imports little, as it is started often; its environment is the sandbox's.
# ruff: noqa: PTH105, PTH108, PTH109, PTH110, PTH118, PTH123, S310, T201, TID251
# pyright: reportOptionalMemberAccess=none, reportArgumentType=none

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import tty
import urllib.request
import uuid

VERSION = "1.0.0 (Fake Agent)"
IDLE, WORKING = "\u2733 Fake Agent", "\u2802 Fake Agent"
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|AUTH")
PASTE_BEGIN, PASTE_END = "\x1b[200~", "\x1b[201~"
TICK_S = 0.02
HOOK_S = 60


def main():
    arguments = Arguments(sys.argv[1:])
    if arguments.version:
        print(VERSION)
        return 0
    agent = Agent(arguments)
    try:
        agent.screen.open()
        return agent.run()
    finally:
        agent.screen.close()


class Arguments:
    def __init__(self, words):
        self.settings, self.conversation, self.resumed, self.version = {}, "", False, False
        self.model, prompts = "fake", []
        words = list(words)
        while words:
            word = words.pop(0)
            if word == "--version":
                self.version = True
            elif word == "--settings":
                with open(words.pop(0), encoding="utf-8") as file:
                    self.settings = json.load(file)
            elif word == "--resume":
                self.conversation, self.resumed = words.pop(0), True
            elif word == "--model":
                self.model = words.pop(0)
            elif word == "--session-id":
                self.conversation = words.pop(0)
            elif word == "--" or not word.startswith("-"):
                prompts += [word] if word != "--" else []
        self.prompt = prompts[0] if prompts else ""
        self.conversation = self.conversation or str(uuid.uuid4())


class Left(Exception):
    """The agent is to end."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Interrupted(Exception):
    """The turn is to end."""


class Screen:
    """The terminal: raw, with one line at the bottom that is being typed."""

    def __init__(self):
        self.typed, self.pasting, self.waiting = "", False, b""
        self.modes = None

    def open(self):
        self.modes = termios.tcgetattr(0)
        tty.setraw(0, termios.TCSANOW)
        self.write("\x1b[?2004h\x1b[?1004h")
        self.title(IDLE)

    def close(self):
        self.write("\r\x1b[K\x1b[?2004l\x1b[?1004l")
        if self.modes is not None:
            termios.tcsetattr(0, termios.TCSANOW, self.modes)

    def write(self, text):
        data = text.encode()
        while data:
            data = data[os.write(1, data) :]

    def say(self, text):
        lines = text.replace("\r", "").split("\n")
        self.write("\r\x1b[K" + "".join(f"{line}\r\n" for line in lines))
        self.draw()

    def draw(self):
        shown = self.typed.replace("\n", "\u23ce")
        self.write(f"\r\x1b[K> {shown}")

    def title(self, text):
        self.write(f"\x1b]0;{text}\x07")

    def size(self):
        rows, columns = struct.unpack("HHHH", fcntl.ioctl(1, termios.TIOCGWINSZ, b"\0" * 8))[:2]
        return f"{columns}x{rows}"

    def keys(self, wait_s, also=()):
        """Return the keys that came, and which of the other files can be read."""
        ready = select.select([0, *also], [], [], wait_s)[0]
        found = []
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                raise Left(0)
            found = self.parsed(data)
        return found, [one for one in ready if one != 0]

    def parsed(self, data):
        text = (self.waiting + data).decode(errors="replace")
        self.waiting = b""
        found = []
        while text:
            if self.pasting:
                before, end, text = text.partition(PASTE_END)
                self.typed += before.replace("\r", "\n")
                self.pasting = not end
                found.append("paste")
            elif text.startswith(PASTE_BEGIN):
                self.pasting, text = True, text[len(PASTE_BEGIN) :]
            elif match := re.match(r"\x1b\[[0-9;?<>]*[A-Za-z~]|\x1bO.", text):
                text = text[match.end() :]
            else:
                found.append(text[0])
                text = text[1:]
        return found


class Agent:
    def __init__(self, arguments):
        self.screen = Screen()
        self.arguments = arguments
        self.conversation = arguments.conversation
        self.hooks = arguments.settings.get("hooks", {})
        self.refreshed = 0

    # ---- hooks ---------------------------------------------------------------------------------

    def commands(self, event, payload):
        tool = payload.get("tool_name", "")
        for entry in self.hooks.get(event, []):
            if re.fullmatch(entry.get("matcher") or ".*", tool):
                yield from (one["command"] for one in entry["hooks"] if one["type"] == "command")

    def started(self, event, **payload):
        said = {"session_id": self.conversation, "cwd": os.getcwd(), "hook_event_name": event}
        text = json.dumps({**said, **payload}, indent=1).encode()
        for command in self.commands(event, payload):
            hook = subprocess.Popen(
                ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            try:
                hook.stdin.write(text)
                hook.stdin.close()
            except BrokenPipeError:
                pass
            yield hook

    def tell(self, event, **payload):
        for hook in self.started(event, **payload):
            hook.stdout.read()
            hook.wait(HOOK_S)

    # ---- the loop ------------------------------------------------------------------------------

    def run(self):
        source = "resume" if self.arguments.resumed else "startup"
        self.screen.say(f"Welcome to Fake Agent ({source} {self.conversation})")
        self.tell("SessionStart", source=source)
        try:
            if self.arguments.prompt:
                self.turn(self.arguments.prompt)
            while True:
                for key in self.screen.keys(None)[0]:
                    self.key(key)
                self.screen.draw()
        except Left as left:
            self.tell("SessionEnd", reason="exit")
            return left.code

    def key(self, key):
        screen = self.screen
        if key in ("\r", "\n"):
            text, screen.typed = screen.typed, ""
            if text.strip():
                self.turn(text.strip())
        elif key == "\x03":
            raise Left(0)
        elif key == "\x1a":
            self.suspend()
        elif key == "\x7f":
            screen.typed = screen.typed[:-1]
        elif len(key) == 1 and key.isprintable():
            screen.typed += key

    def turn(self, prompt):
        self.screen.say(f"> {prompt}")
        self.screen.title(WORKING)
        try:
            self.tell("UserPromptSubmit", prompt=prompt)
            said = self.obey(prompt)
        except Interrupted:
            self.screen.say("Interrupted by user")
        else:
            if said is not None:
                self.screen.say(f"\u25cf {said}")
                self.tell("Stop", last_assistant_message=said)
        self.screen.title(IDLE)

    def obey(self, prompt):
        word, _, rest = prompt.partition(" ")
        permission = re.fullmatch(r"(subagent asks|ask permission): *(.*)", prompt, re.DOTALL)
        if permission:
            agent = {"agent_id": "sub-1"} if permission[1].startswith("sub") else {}
            return self.permission(permission[2], agent)
        do = getattr(self, f"do_{word}", None)
        return do(rest) if do else f"I cannot do that: {prompt}"

    def do_say(self, rest):
        return rest

    def do_work(self, rest):
        folder = os.environ.get("FAKE_AGENT_GATES") or os.getcwd()
        for step in range(1, int(rest) + 1):
            gate = os.path.join(folder, f"go-{step}")
            self.tell("PreToolUse", tool_name="Bash", tool_input={"command": f"step {step}"})
            self.screen.say(f"waits for go-{step}")
            while not os.path.exists(gate):
                self.look(TICK_S)
            os.unlink(gate)
            self.tell("PostToolUse", tool_name="Bash", tool_input={"command": f"step {step}"})
        return f"worked {rest} steps"

    def look(self, wait_s, also=()):
        """Take the keys of a turn: Escape and Ctrl-C interrupt it; return the others."""
        keys, ready = self.screen.keys(wait_s, also)
        if "\x1b" in keys or "\x03" in keys:
            raise Interrupted
        if "\x1a" in keys:
            self.suspend()
        return keys, ready

    def permission(self, command, agent):
        tool = {"tool_name": "Bash", "tool_input": {"command": command}, **agent}
        hooks = list(self.started("PermissionRequest", **tool))
        self.screen.say(f"Fake Agent wants to run: {command}\nDo you want to allow it? y/n")
        waiting = {one.stdout.fileno(): one for one in hooks}
        decided = ""
        while not decided:
            keys, ready = self.look(None, list(waiting))
            decided = next((one for one in keys if one in "yn"), "")
            if decided:
                return self.decided(command, tool, decided == "y", "in the terminal", "no")
            for fd in ready:
                hook = waiting.pop(fd)
                text = hook.stdout.read()
                hook.wait(HOOK_S)
                if text.strip():
                    answer = json.loads(text)["hookSpecificOutput"]["decision"]
                    allowed, why = answer["behavior"] == "allow", answer.get("message", "")
                    return self.decided(command, tool, allowed, "by PermissionRequest hook", why)
        return None

    def decided(self, command, tool, allowed, by, why):
        self.screen.say(f"{'Allowed' if allowed else 'Denied'} {by}")
        if allowed:
            self.tell("PostToolUse", tool_response="done", **tool)
            return f"ran {command}"
        self.tell("PermissionDenied", **tool)
        return f"Error: {why}"

    def do_question(self, rest):
        tool = {"tool_name": "AskUserQuestion", "tool_input": {"question": "Which one?"}}
        self.tell("PreToolUse", **tool)
        self.screen.say("Which one? 1. red 2. blue")
        chosen = ""
        while not chosen:
            chosen = next((one for one in self.look(None)[0] if one in "12"), "")
        self.tell("PostToolUse", tool_response=chosen, **tool)
        return f"you chose {chosen}"

    def do_fail(self, rest):
        self.screen.say(f"API error: {rest}")
        self.tell("StopFailure", error=rest)

    def do_subagent(self, rest):
        agent = {"agent_id": "sub-1", "agent_type": "helper"}
        self.tell("SubagentStart", **agent)
        self.tell("PreToolUse", tool_name="Bash", tool_input={"command": "ls"}, **agent)
        self.tell("PostToolUse", tool_name="Bash", tool_input={"command": "ls"}, **agent)
        self.tell("SubagentStop", **agent)
        return "the subagent is done"

    def do_exit(self, rest):
        raise Left(int(rest or 0))

    def do_crash(self, rest):
        self.screen.write("\x1b[?1049h\x1b[2J\x1b[?25l\x1b[?1000hin the middle")
        os.kill(os.getpid(), signal.SIGKILL)

    def do_title(self, rest):
        self.screen.write("\x1b]0;needs you\x07\x07\x1b]9;needs you\x07")
        return "the title is set"

    def do_size(self, rest):
        return self.screen.size()

    def do_suspend(self, rest):
        self.suspend()
        return "back again"

    def suspend(self):
        self.screen.close()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.screen.open()
        self.screen.draw()

    def do_model(self, rest):
        url = os.environ["ANTHROPIC_BASE_URL"].rstrip("/") + "/v1/messages"
        body = {"model": self.arguments.model, "max_tokens": 100}
        body["messages"] = [{"role": "user", "content": rest}]
        headers = {"content-type": "application/json"}
        if "ANTHROPIC_API_KEY" in os.environ:
            headers["x-api-key"] = os.environ["ANTHROPIC_API_KEY"]
        else:
            headers["authorization"] = f"Bearer {os.environ['ANTHROPIC_AUTH_TOKEN']}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                said = json.load(answer)
        except OSError as error:
            self.screen.say(f"API error: {error}")
            self.tell("StopFailure", error=f"{error}"[:100])
            return None
        return "".join(one.get("text", "") for one in said["content"])

    def login(self):
        return os.path.join(os.environ.get("CLAUDE_CONFIG_DIR", "."), ".credentials.json")

    def do_refresh(self, rest):
        self.refreshed += 1
        path = self.login()
        with open(path, encoding="utf-8") as file:
            login = json.load(file)
        login["refreshed"] = self.refreshed
        new = path + ".new" if "rename" in rest else path
        with open(new, "w", encoding="utf-8") as file:
            json.dump(login, file)
        os.replace(new, path)
        return f"login {self.refreshed}"

    def do_env(self, rest):
        lines = [f"{name}={value}" for name, value in sorted(os.environ.items())]
        lines = [line for line in lines if SECRET.search(line.partition("=")[0])]
        if os.path.exists(self.login()):
            with open(self.login(), encoding="utf-8") as file:
                lines.append(f"login file: {file.read()}")
        return "\n".join(lines) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
