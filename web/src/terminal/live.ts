/** A terminal on the page: the emulator, its connection, and what the browser says around them. */

import { copyText } from '@/ui/code';
import { Connection, type ConnectionState, type Held, type Socket } from './connection';
import { Emulator, type SearchResult } from './emulator';
import {
  encodeKey,
  modify,
  spendSticky,
  tapSticky,
  keyUse,
  type BarKey,
  type Platform,
  type Sticky,
  type TerminalCommand,
} from './keys';
import { SUBPROTOCOL, type Size } from './protocol';
import { watchReturns } from './returning';
import { onTerminalSettings, stepFont, terminalSettings } from './settings';
import { amount, bracket, fileName, outputOf, preparePaste, type Paste } from './text';
import type { ThemeName } from './themes';
import { scrollByTouch } from './touch';
import { terminalUrl, type TerminalAuth, type TerminalPlace } from './url';

const RESIZE_MS = 80;
const NOTICE_MS = 6000;
const FLASH_MS = 150;
const SAVE_MS = 60_000;
/** A timer that comes so late tells of a machine that slept: its connections are dead. */
const SLEPT_MS = 180_000;
const WATCH_MS = 10_000;

export type Question =
  | { kind: 'paste'; paste: Extract<Paste, { kind: 'paste' }> }
  | { kind: 'copy'; text: string }
  | { kind: 'paste-box' };

export type ViewState = {
  connection: ConnectionState;
  held: Held;
  size: Size | null;
  /** Whether the size is the one that fits here; else another window's. */
  own: boolean;
  question: Question | null;
  link: string | null;
  notice: string | null;
  ctrl: Sticky;
  alt: Sticky;
  flash: boolean;
  finding: boolean;
  found: SearchResult | null;
};

export const FIRST_STATE: ViewState = {
  connection: { kind: 'connecting' },
  held: { pieces: 0, bytes: 0 },
  size: null,
  own: true,
  question: null,
  link: null,
  notice: null,
  ctrl: 'off',
  alt: 'off',
  flash: false,
  finding: false,
  found: null,
};

export type LiveParts = {
  host: HTMLElement;
  place: TerminalPlace;
  auth: TerminalAuth;
  readOnly: boolean;
  theme: ThemeName;
  onState(state: ConnectionState): void;
  onTitle(title: string): void;
  onBell(): void;
  onFocus(): void;
  onLeave(): void;
};

/** What was decided about programs that write to the clipboard, by session, until the page is left. */
const copyDecisions = new Map<string, 'always' | 'never'>();

export const platform: Platform = /mac|iphone|ipad/iu.test(navigator.userAgent) ? 'mac' : 'other';

export class LiveTerminal {
  private state = FIRST_STATE;
  private readonly listeners = new Set<() => void>();
  private readonly emulator: Emulator;
  private readonly connection: Connection;
  private readonly endings: (() => void)[] = [];
  private theme: ThemeName;
  private resizeTimer = 0;
  private noticeTimer = 0;
  private flashTimer = 0;

  constructor(private readonly parts: LiveParts) {
    this.theme = parts.theme;
    this.connection = new Connection({
      url: (position, renew) => terminalUrl(parts.place, position, parts.auth, renew),
      open: openSocket,
      clock: {
        now: () => performance.now(),
        after: (ms, what) => window.setTimeout(what, ms),
        cancel: (timer) => window.clearTimeout(timer as number),
      },
      random: () => Math.random(),
      screen: {
        write: (bytes, shown) => this.emulator.screen.write(bytes, shown),
        replace: (bytes, shown) => this.emulator.screen.replace(bytes, shown),
        resize: (size) => this.emulator.screen.resize(size),
      },
      role: parts.readOnly ? 'view' : 'drive',
      mayClaimSize: () => document.visibilityState === 'visible' && this.hasRoom(),
      onState: (connection) => {
        this.change({ connection });
        parts.onState(connection);
      },
      onHeld: (held) => this.change({ held }),
      onSize: (size, own) => this.change({ size, own: own || parts.readOnly }),
    });
    // Before the emulator, which takes a while to make: the server is asked meanwhile.
    this.connection.start();
    this.emulator = new Emulator(
      parts.host,
      {
        input: (bytes) => this.type(bytes),
        modified: (typed) => this.modified(typed),
        key: (event) => this.key(event),
        title: (title) => parts.onTitle(title),
        bell: () => this.bell(),
        copy: (text) => this.copyAsked(text),
        link: (link) => this.change({ link }),
        selected: () => this.selected(),
      },
      terminalSettings(),
      parts.theme,
      parts.readOnly,
    );
    this.watch();
    this.fit();
  }

  dispose(): void {
    for (const end of this.endings.splice(0)) end();
    for (const timer of [this.resizeTimer, this.noticeTimer, this.flashTimer]) window.clearTimeout(timer);
    this.connection.close();
    this.emulator.dispose();
    this.listeners.clear();
  }

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  read = (): ViewState => this.state;

  setTheme(theme: ThemeName): void {
    this.theme = theme;
    this.emulator.apply(terminalSettings(), theme);
  }

  focus(): void {
    this.emulator.terminal.focus();
  }

  retry(): void {
    this.connection.retryNow();
    this.focus();
  }

  revive(): void {
    this.connection.revive();
    this.focus();
  }

  discardHeld(): void {
    this.connection.drop();
    this.focus();
  }

  /** Give the terminal this window's size. */
  claim(): void {
    this.connection.claim();
    this.focus();
  }

  // Typing.

  press(key: BarKey): void {
    const { ctrl, alt } = this.state;
    const modifiers = { ctrl: ctrl !== 'off', alt: alt !== 'off', shift: false };
    this.spend();
    const application = this.emulator.terminal.modes.applicationCursorKeysMode;
    this.type(new TextEncoder().encode(encodeKey(key, modifiers, application)));
    this.focus();
  }

  tap(modifier: 'ctrl' | 'alt'): void {
    this.change(
      modifier === 'ctrl' ? { ctrl: tapSticky(this.state.ctrl) } : { alt: tapSticky(this.state.alt) },
    );
    this.focus();
  }

  private modified(typed: string): string {
    const { ctrl, alt } = this.state;
    if (ctrl === 'off' && alt === 'off') return typed;
    this.spend();
    return modify(typed, { ctrl: ctrl !== 'off', alt: alt !== 'off' });
  }

  private spend(): void {
    const { ctrl, alt } = this.state;
    if (ctrl === 'once' || alt === 'once') this.change({ ctrl: spendSticky(ctrl), alt: spendSticky(alt) });
  }

  private type(bytes: Uint8Array): void {
    if (this.parts.readOnly) return;
    const came = this.connection.type(bytes);
    if (came === 'full') this.notify(`This was not sent: ${this.whyFull()}.`);
    else if (came === 'sent' && !this.state.own) this.connection.claim();
  }

  private whyFull(): string {
    return this.connection.state.kind === 'live'
      ? 'the connection is too slow for more'
      : 'the connection is cut, and no more can be held';
  }

  private key(event: KeyboardEvent): boolean {
    const use = keyUse(event, platform);
    switch (use.use) {
      case 'terminal':
        return true;
      case 'command':
        if (event.type === 'keydown') {
          event.preventDefault();
          this.obey(use.command);
        }
        return false;
      default: // the page's, the panes' or the browser's
        return false;
    }
  }

  private obey(command: TerminalCommand): void {
    switch (command) {
      case 'copy':
        this.copySelection();
        return;
      case 'find':
        this.change({ finding: true });
        return;
      case 'leave':
        this.parts.onLeave();
        return;
      case 'font-larger':
      case 'font-smaller':
      case 'font-reset':
        stepFont(command === 'font-larger' ? 1 : command === 'font-smaller' ? -1 : 0);
    }
  }

  // Finding.

  startFinding(): void {
    this.change({ finding: true });
  }

  find(text: string, backwards: boolean, incremental: boolean): void {
    this.emulator.find(text, backwards, incremental);
    if (text === '') this.change({ found: null });
  }

  stopFinding(): void {
    this.emulator.stopFinding();
    this.change({ finding: false, found: null });
    this.focus();
  }

  // The clipboard.

  paste(text: string): void {
    if (this.parts.readOnly) return;
    const paste = preparePaste(text, this.emulator.terminal.modes.bracketedPasteMode);
    if (paste.kind === 'too-big') {
      this.notify(`${amount(paste.bytes)} is too much: at most 1 MiB can be pasted at once.`);
    } else if (paste.kind === 'paste') {
      if (paste.ask.length > 0) this.change({ question: { kind: 'paste', paste } });
      else this.sendPaste(paste.text);
    }
  }

  /** Paste what the clipboard holds, or ask for it where the browser does not tell. */
  async pasteFromClipboard(): Promise<void> {
    try {
      this.paste(await navigator.clipboard.readText());
      if (this.state.question === null) this.focus();
    } catch {
      this.change({ question: { kind: 'paste-box' } });
    }
  }

  /** Answer the question that is shown. */
  answer(yes: boolean, forSession = false): void {
    const { question } = this.state;
    this.change({ question: null });
    if (question?.kind === 'paste' && yes) this.sendPaste(question.paste.text);
    if (question?.kind === 'copy') {
      if (forSession) copyDecisions.set(this.parts.place.sessionId, yes ? 'always' : 'never');
      if (yes) void this.copy(question.text);
    }
    this.focus();
  }

  answerPasteBox(text: string): void {
    this.change({ question: null });
    this.paste(text);
    this.focus();
  }

  copySelection(): void {
    const text = this.emulator.terminal.getSelection();
    if (text !== '') void this.copy(text);
  }

  private sendPaste(text: string): void {
    const { terminal } = this.emulator;
    // The program may have changed its mind while the question was shown.
    const sent = terminal.modes.bracketedPasteMode ? bracket(text) : text;
    this.type(new TextEncoder().encode(sent));
    terminal.scrollToBottom();
  }

  private copyAsked(text: string): void {
    const decided = copyDecisions.get(this.parts.place.sessionId);
    if (this.parts.readOnly || decided === 'never') return;
    if (decided === 'always') {
      void this.copy(text);
      return;
    }
    // A question that somebody is about to answer is not changed under the hand.
    if (this.state.question === null) this.change({ question: { kind: 'copy', text } });
  }

  private async copy(text: string): Promise<void> {
    const copied = await this.intoClipboard(text);
    this.notify(copied ? 'Copied.' : 'The browser does not let this page copy.');
  }

  private selected(): void {
    if (!terminalSettings().copyOnSelect) return;
    const text = this.emulator.terminal.getSelection();
    if (text !== '') void this.intoClipboard(text);
  }

  private async intoClipboard(text: string): Promise<boolean> {
    const hadFocus = this.parts.host.contains(document.activeElement);
    const copied = await copyText(text);
    // Without https the way into the clipboard leads through a field that takes the focus.
    if (hadFocus) this.focus();
    return copied;
  }

  // All that was printed.

  /** Copy everything that the terminal still has, not only what is in view. */
  copyOutput(): void {
    void this.copy(outputOf(this.emulator.text()));
  }

  /** Save the same as a file of plain text. */
  saveOutput(name: string): void {
    const text = `${outputOf(this.emulator.text())}\n`;
    const url = URL.createObjectURL(new Blob([text], { type: 'text/plain;charset=utf-8' }));
    const link = document.createElement('a');
    link.href = url;
    link.download = fileName(name);
    link.click();
    // Not at once: some browsers begin to read it only after this turn.
    window.setTimeout(() => URL.revokeObjectURL(url), SAVE_MS);
  }

  // What the browser says.

  private watch(): void {
    const { host } = this.parts;
    const sizes = new ResizeObserver(() => this.fitSoon());
    sizes.observe(host);
    this.endings.push(
      () => sizes.disconnect(),
      onTerminalSettings(() => {
        this.emulator.apply(terminalSettings(), this.theme);
        this.fitSoon();
      }),
      this.emulator.onFound((found) => this.change({ found })),
      this.watchSleep(),
      scrollByTouch(host, this.emulator.terminal),
      watchReturns({
        retry: (anew) => this.connection.retryNow(anew),
        lost: () => this.connection.suspect(''),
        seen: () => {
          if (host.contains(document.activeElement)) this.connection.claim();
        },
      }),
    );
    this.listen(host, 'paste', (event) => this.pasted(event as ClipboardEvent), true);
    this.listen(host, 'focusin', () => {
      this.parts.onFocus();
      this.connection.claim();
    });
  }

  private listen(target: EventTarget, name: string, what: (event: Event) => void, capture = false): void {
    target.addEventListener(name, what, capture);
    this.endings.push(() => target.removeEventListener(name, what, capture));
  }

  private watchSleep(): () => void {
    let last = Date.now();
    const timer = window.setInterval(() => {
      const now = Date.now();
      if (now - last > SLEPT_MS) this.connection.suspect('');
      last = now;
    }, WATCH_MS);
    return () => window.clearInterval(timer);
  }

  private pasted(event: ClipboardEvent): void {
    event.preventDefault();
    event.stopPropagation();
    this.paste(event.clipboardData?.getData('text/plain') ?? '');
  }

  private hasRoom(): boolean {
    return this.parts.host.clientWidth > 0 && this.parts.host.clientHeight > 0;
  }

  private fitSoon(): void {
    window.clearTimeout(this.resizeTimer);
    this.resizeTimer = window.setTimeout(() => this.fit(), RESIZE_MS);
  }

  private fit(): void {
    const size = this.hasRoom() ? this.emulator.fittingSize() : null;
    if (size !== null) this.connection.fit(size);
  }

  private bell(): void {
    this.parts.onBell();
    if (this.state.flash) return;
    this.change({ flash: true });
    this.flashTimer = window.setTimeout(() => this.change({ flash: false }), FLASH_MS);
  }

  private notify(notice: string): void {
    window.clearTimeout(this.noticeTimer);
    this.change({ notice });
    this.noticeTimer = window.setTimeout(() => this.change({ notice: null }), NOTICE_MS);
  }

  private change(change: Partial<ViewState>): void {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener();
  }
}

function openSocket(url: string): Socket {
  const socket = new WebSocket(url, SUBPROTOCOL);
  socket.binaryType = 'arraybuffer';
  return socket as unknown as Socket;
}
