import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from 'react';
import type { RefObject } from 'react';
import { useHighContrast, useShownTheme } from '@/app/appearance';
import { cn } from '@/ui/cn';
import { pageAuth } from './auth';
import { Banner, ReadOnlyNote, SizeNote, spoken } from './banner';
import type { ConnectionState } from './connection';
import { KeyBar } from './keybar';
import { FIRST_STATE, LiveTerminal, platform, type ViewState } from './live';
import { QuestionBar } from './questions';
import { SearchBar } from './searchbar';
import { THEMES, type ThemeName } from './themes';
import type { TerminalAuth } from './url';
import { useAboveKeyboard } from './viewport';

export type TerminalViewProps = {
  sessionId: string;
  environmentId: string;
  /** What the terminal is, for screen readers: the session's name. */
  label?: string;
  /** Only watches: types nothing, gives no size. */
  readOnly?: boolean;
  /** Takes the focus when it appears. */
  autoFocus?: boolean;
  /** Where the focus goes when somebody leaves the terminal (Ctrl+Shift+Esc); else behind it. */
  focusChain?: RefObject<HTMLElement | null>;
  /** The keys that touch keyboards lack; by default where there is no fine pointer. */
  keyBar?: boolean;
  /** Without it, the page's own sign-in. */
  auth?: TerminalAuth;
  /** The program's title: plain text of at most 256 characters. */
  onTitle?: (title: string) => void;
  onState?: (state: ConnectionState) => void;
  onBell?: () => void;
  /** The focus came into the terminal. */
  onFocus?: () => void;
  /** Somebody whose sign-in has ended wants to sign in. */
  onSignIn?: () => void;
  /** The terminal is there, for what a menu does with it; null when it is gone. */
  onLive?: (live: LiveTerminal | null) => void;
  className?: string;
};

function useTheme(): ThemeName {
  const shown = useShownTheme();
  return useHighContrast() ? `contrast-${shown}` : shown;
}

const nothing = () => () => undefined;

/** One session's terminal. Fills the room it is given; a hidden one goes on. */
export function TerminalView({
  sessionId,
  environmentId,
  label = 'Terminal',
  readOnly = false,
  autoFocus = false,
  focusChain,
  keyBar,
  auth = pageAuth,
  onTitle,
  onState,
  onBell,
  onFocus,
  onSignIn,
  onLive,
  className,
}: TerminalViewProps) {
  const root = useRef<HTMLElement>(null);
  const behind = useRef<HTMLButtonElement>(null);
  const [live, setLive] = useState<LiveTerminal | null>(null);
  const theme = useTheme();
  const latest = useRef({ onTitle, onState, onBell, onFocus, onLive, focusChain, autoFocus, theme });
  useEffect(() => {
    latest.current = { onTitle, onState, onBell, onFocus, onLive, focusChain, autoFocus, theme };
  });
  useAboveKeyboard(root);

  const attach = useCallback(
    (host: HTMLElement | null) => {
      if (host === null) return undefined;
      const terminal = new LiveTerminal({
        host,
        place: { sessionId, environmentId },
        auth,
        readOnly,
        theme: latest.current.theme,
        onState: (state) => latest.current.onState?.(state),
        onTitle: (title) => latest.current.onTitle?.(title),
        onBell: () => latest.current.onBell?.(),
        onFocus: () => latest.current.onFocus?.(),
        onLeave: () => (latest.current.focusChain?.current ?? behind.current)?.focus(),
      });
      setLive(terminal);
      latest.current.onLive?.(terminal);
      if (latest.current.autoFocus) terminal.focus();
      return () => {
        latest.current.onLive?.(null);
        terminal.dispose();
      };
    },
    [sessionId, environmentId, auth, readOnly],
  );

  useEffect(() => live?.setTheme(theme), [live, theme]);

  const subscribe = useCallback((listener: () => void) => live?.subscribe(listener) ?? nothing, [live]);
  const state = useSyncExternalStore(subscribe, () => live?.read() ?? FIRST_STATE);

  return (
    <section
      ref={root}
      data-terminal=""
      data-terminal-state={state.connection.kind}
      data-terminal-size={state.size === null ? undefined : `${state.size.columns}x${state.size.rows}`}
      data-terminal-held={state.held.bytes}
      aria-label={label}
      className={cn('relative flex size-full min-h-0 min-w-0 flex-col overflow-hidden', className)}
      style={{ background: THEMES[theme].background }}
    >
      <span role="status" className="sr-only">
        {spoken(state.connection, state.held)}
      </span>
      <div
        className={cn(
          'relative isolate min-h-0 flex-1 transition-opacity',
          state.connection.kind !== 'live' && state.connection.kind !== 'connecting' && 'opacity-60',
          // Another window's size may be larger than this one.
          state.own ? 'overflow-hidden' : 'overflow-auto',
        )}
      >
        <div
          ref={attach}
          className={cn(
            'absolute inset-2',
            !state.own &&
              '[&_.xterm]:w-fit [&_.xterm-screen]:outline [&_.xterm-screen]:outline-dashed [&_.xterm-screen]:outline-line-strong',
          )}
        />
      </div>
      {state.flash && (
        <div aria-hidden className="pointer-events-none absolute inset-0 border-2 border-warn" />
      )}
      {live !== null && <Over live={live} state={state} readOnly={readOnly} onSignIn={onSignIn} />}
      {live !== null && !readOnly && (
        <div className={cn(keyBar === undefined ? 'hidden pointer-coarse:block' : !keyBar && 'hidden')}>
          <KeyBar ctrl={state.ctrl} alt={state.alt} actions={live} />
        </div>
      )}
      <button
        ref={behind}
        type="button"
        tabIndex={-1}
        className="absolute right-2 bottom-2 rounded-md border border-line bg-raised px-2.5 py-1 text-xs text-fg opacity-0 shadow-md focus:opacity-100 not-focus:pointer-events-none"
        onClick={() => live?.focus()}
      >
        Outside the terminal. Enter goes back in, Tab goes on.
      </button>
    </section>
  );
}

/** What lies over the terminal: banners, questions, the search, where a link leads. */
function Over({
  live,
  state,
  readOnly,
  onSignIn,
}: {
  live: LiveTerminal;
  state: ViewState;
  readOnly: boolean;
  onSignIn: (() => void) | undefined;
}) {
  const actions = {
    retry: () => live.retry(),
    revive: () => live.revive(),
    discardHeld: () => live.discardHeld(),
    signIn: onSignIn,
  };
  const key = platform === 'mac' ? '⌘' : 'Ctrl';
  return (
    <>
      <div className="pointer-events-none absolute inset-x-2 top-2 flex flex-col gap-2">
        <Banner state={state.connection} held={state.held} actions={actions} />
        {state.question !== null && <QuestionBar question={state.question} answers={live} />}
        {state.finding && <SearchBar search={live} found={state.found} />}
        {readOnly && <ReadOnlyNote />}
        {!state.own && state.size !== null && (
          <SizeNote size={`${state.size.columns} × ${state.size.rows}`} onClaim={() => live.claim()} />
        )}
      </div>
      <div role="status" className="pointer-events-none absolute right-2 bottom-2 max-w-[calc(100%-1rem)]">
        {state.notice !== null && (
          <p className="rounded-md border border-line bg-raised px-2.5 py-1 text-sm text-fg shadow-md animate-fade">
            {state.notice}
          </p>
        )}
      </div>
      {state.link !== null && (
        <div className="pointer-events-none absolute bottom-2 left-2 max-w-[calc(100%-1rem)] truncate rounded-md border border-line bg-raised px-2 py-1 font-mono text-xs text-fg shadow-md">
          {state.link} <span className="font-sans text-fg-3">{key}+click opens it</span>
        </div>
      )}
    </>
  );
}
