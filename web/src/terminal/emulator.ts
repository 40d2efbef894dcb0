/** xterm.js as this page wants it: it answers nothing, opens nothing and copies nothing by itself. */

import { FitAddon } from '@xterm/addon-fit';
import { SearchAddon, type ISearchOptions } from '@xterm/addon-search';
import { Unicode11Addon } from '@xterm/addon-unicode11';
import { WebLinksAddon } from '@xterm/addon-web-links';
import { Terminal, type IBuffer, type IFunctionIdentifier, type IParser } from '@xterm/xterm';
import '@xterm/xterm/css/xterm.css';
import { isAnswer } from './keys';
import type { Size } from './protocol';
import { screenOf } from './screen';
import type { TerminalSettings } from './settings';
import { cleanTitle, copyRequest, openLink, webAddress } from './text';
import { CONTRAST, THEMES, type ThemeName } from './themes';

const FONT =
  "ui-monospace, 'SF Mono', 'Cascadia Mono', 'JetBrains Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace";
const SCROLLBACK = 50_000;
const TOUCH_SCROLLBACK = 10_000;

/** The questions that programs ask a terminal. tmux in the sandbox answers them, alone. */
const QUESTIONS: readonly IFunctionIdentifier[] = [
  { final: 'c' },
  { prefix: '>', final: 'c' },
  { prefix: '=', final: 'c' },
  { final: 'n' },
  { prefix: '?', final: 'n' },
  { intermediates: '$', final: 'p' },
  { prefix: '?', intermediates: '$', final: 'p' },
  { prefix: '>', final: 'q' },
  { prefix: '?', final: 'u' },
  { final: 't' },
  { final: 'x' },
];
/** Operating system commands that ask when a parameter is a question mark. */
const COLOURS = [4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];

export type EmulatorEvents = {
  input(bytes: Uint8Array): void;
  /** Return what was typed with the key bar's modifiers held. */
  modified(typed: string): string;
  key(event: KeyboardEvent): boolean;
  title(title: string): void;
  bell(): void;
  /** A program wants this text in the clipboard. */
  copy(text: string): void;
  /** The pointer is over a link that leads there, or over none. */
  link(address: string | null): void;
  selected(): void;
};

export type SearchResult = { index: number; count: number };

export class Emulator {
  readonly terminal: Terminal;
  readonly screen;
  private readonly fitAddon = new FitAddon();
  private readonly search = new SearchAddon({ highlightLimit: 1000 });
  private theme: ThemeName;
  private disposed = false;

  constructor(
    host: HTMLElement,
    private readonly events: EmulatorEvents,
    settings: TerminalSettings,
    theme: ThemeName,
    readOnly: boolean,
  ) {
    this.theme = theme;
    const coarse = window.matchMedia('(pointer: coarse)').matches;
    this.terminal = new Terminal({
      allowProposedApi: true,
      altClickMovesCursor: false,
      cursorBlink: !window.matchMedia('(prefers-reduced-motion: reduce)').matches,
      disableStdin: readOnly,
      fontFamily: FONT,
      lineHeight: 1.15,
      logLevel: 'off',
      scrollback: coarse ? TOUCH_SCROLLBACK : SCROLLBACK,
      linkHandler: {
        activate: (event, text) => this.follow(event, text),
        hover: (_event, text) => events.link(webAddress(text)),
        leave: () => events.link(null),
        allowNonHttpProtocols: false,
      },
      ...options(settings, theme),
    });
    this.screen = screenOf(this.terminal);
    this.terminal.loadAddon(this.fitAddon);
    this.terminal.loadAddon(this.search);
    this.terminal.loadAddon(new Unicode11Addon());
    this.terminal.unicode.activeVersion = '11';
    this.terminal.loadAddon(
      new WebLinksAddon((event, text) => this.follow(event, text), {
        hover: (_event, text) => events.link(webAddress(text)),
        leave: () => events.link(null),
      }),
    );
    this.listen();
    this.terminal.open(host);
    void this.accelerate();
  }

  dispose(): void {
    this.disposed = true;
    this.terminal.dispose();
  }

  apply(settings: TerminalSettings, theme: ThemeName): void {
    this.theme = theme;
    Object.assign(this.terminal.options, options(settings, theme));
  }

  /** Return the size that fills the room there is, or null while there is none. */
  fittingSize(): Size | null {
    const size = this.fitAddon.proposeDimensions();
    if (size === undefined || !Number.isFinite(size.cols) || !Number.isFinite(size.rows)) return null;
    return { columns: Math.min(size.cols, 1000), rows: Math.min(size.rows, 500) };
  }

  find(text: string, backwards: boolean, incremental: boolean): void {
    if (text === '') {
      this.stopFinding();
      return;
    }
    const options = { ...this.searchOptions(), incremental };
    if (backwards) this.search.findPrevious(text, options);
    else this.search.findNext(text, options);
  }

  stopFinding(): void {
    this.search.clearDecorations();
    this.terminal.clearSelection();
  }

  onFound(found: (result: SearchResult) => void): () => void {
    const listening = this.search.onDidChangeResults(({ resultIndex, resultCount }) =>
      found({ index: resultIndex, count: resultCount }),
    );
    return () => listening.dispose();
  }

  /** Return all lines that there are, wrapped ones joined; a full-screen program's after the history. */
  text(): string[] {
    const { active, normal } = this.terminal.buffer;
    return [...linesOf(normal), ...(active.type === 'alternate' ? linesOf(active) : [])];
  }

  private listen(): void {
    const { terminal, events } = this;
    silence(terminal.parser);
    terminal.parser.registerOscHandler(52, (command) => {
      const text = copyRequest(command);
      if (text !== null) events.copy(text);
      return true;
    });
    const encoder = new TextEncoder();
    terminal.onData((typed) => {
      if (!isAnswer(typed)) events.input(encoder.encode(events.modified(typed)));
    });
    terminal.onBinary((typed) => events.input(Uint8Array.from(typed, (one) => one.charCodeAt(0) & 255)));
    terminal.onTitleChange((title) => events.title(cleanTitle(title)));
    terminal.onBell(() => events.bell());
    terminal.onSelectionChange(() => events.selected());
    terminal.attachCustomKeyEventHandler((event) => events.key(event));
  }

  private follow(event: MouseEvent, text: string): void {
    // A plain click is for the terminal; a finger has no second key.
    const meant = event.ctrlKey || event.metaKey || window.matchMedia('(pointer: coarse)').matches;
    if (meant) openLink(text);
  }

  private async accelerate(): Promise<void> {
    try {
      const { WebglAddon } = await import('@xterm/addon-webgl');
      if (this.disposed) return;
      const webgl = new WebglAddon();
      // Without the addon the emulator draws with the page's own means again.
      webgl.onContextLoss(() => webgl.dispose());
      this.terminal.loadAddon(webgl);
    } catch {
      // There is no WebGL here: the same.
    }
  }

  private searchOptions(): ISearchOptions {
    const light = this.theme.endsWith('light');
    return {
      decorations: {
        matchBackground: light ? '#fff1a8' : '#5c4a12',
        matchOverviewRuler: '#d9a514',
        activeMatchBackground: light ? '#ffc93c' : '#a37a00',
        activeMatchBorder: light ? '#7a5600' : '#ffe08a',
        activeMatchColorOverviewRuler: '#f5b800',
      },
    };
  }
}

function options(settings: TerminalSettings, theme: ThemeName) {
  return {
    fontSize: settings.fontSize,
    macOptionIsMeta: settings.optionIsMeta,
    minimumContrastRatio: CONTRAST[theme],
    screenReaderMode: settings.screenReader,
    theme: THEMES[theme],
  };
}

/** Return the lines of a buffer as they were printed: what had to be wrapped is in one piece again. */
export function linesOf(buffer: IBuffer): string[] {
  const lines: string[] = [];
  for (let at = 0; at < buffer.length; at++) {
    const line = buffer.getLine(at);
    const wraps = buffer.getLine(at + 1)?.isWrapped ?? false;
    const shown = line?.translateToString(!wraps) ?? '';
    if (line?.isWrapped === true && lines.length > 0) lines.push((lines.pop() ?? '') + shown);
    else lines.push(shown);
  }
  return lines;
}

/** Take the questions away before the emulator sees them. */
export function silence(parser: IParser): void {
  for (const question of QUESTIONS) parser.registerCsiHandler(question, () => true);
  for (const intermediates of ['$', '+']) {
    parser.registerDcsHandler({ intermediates, final: 'q' }, () => true);
  }
  for (const number of COLOURS) {
    parser.registerOscHandler(number, (command) => command.split(';').some((part) => part.startsWith('?')));
  }
}
