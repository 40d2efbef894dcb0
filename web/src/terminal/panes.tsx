import {
  AArrowDown,
  AArrowUp,
  Columns2,
  Copy,
  Download,
  EllipsisVertical,
  Maximize2,
  Minimize2,
  Plus,
  Rows2,
  Search,
  SquareTerminal,
  X,
} from 'lucide-react';
import {
  useEffect,
  useLayoutEffect,
  useRef,
  useState,
  type KeyboardEvent,
  type PointerEvent,
  type ReactNode,
} from 'react';
import { Button, IconButton } from '@/ui/button';
import { cn } from '@/ui/cn';
import { DropdownMenu } from '@/ui/menu';
import { keyUse, type PaneCommand } from './keys';
import {
  WHOLE,
  activeTab,
  addTab,
  closePane,
  closeTab,
  fill,
  focusPane,
  keepSessions,
  layoutOf,
  leaf,
  leaves,
  neighbour,
  place,
  readLayout,
  setRatio,
  split,
  toggleZoom,
  type Box,
  type Direction,
  type Divider,
  type Layout,
  type Leaf,
  type Tab,
} from './layout';
import { platform, type LiveTerminal } from './live';
import { stepFont } from './settings';
import { TerminalView, type TerminalViewProps } from './view';

export type PaneSession = { id: string; environmentId: string; name: string };

export type TerminalPanesProps = {
  /** Names what is remembered: one workspace has one arrangement in this browser. */
  workspace: string;
  /** The sessions that can be shown. */
  sessions: readonly PaneSession[];
  /** Shown first; another one later is brought to the front. */
  first?: string;
  /** Makes a session for a new pane; null when somebody thought better of it. */
  onCreate?: () => Promise<PaneSession | null>;
  /** The session whose pane has the focus. */
  onActive?: (sessionId: string | null) => void;
} & Pick<TerminalViewProps, 'auth' | 'readOnly' | 'onSignIn' | 'focusChain'>;

const keyOf = (workspace: string) => `craftastic.panes.${workspace}`;

function remembered(workspace: string): Layout | null {
  try {
    return readLayout(localStorage.getItem(keyOf(workspace)));
  } catch {
    return null;
  }
}

function remember(workspace: string, layout: Layout): void {
  try {
    localStorage.setItem(keyOf(workspace), JSON.stringify(layout));
  } catch {
    // Storage is closed or full: the arrangement lives as long as the page.
  }
}

/** Return the arrangement to begin with. */
function begin(workspace: string, sessions: readonly PaneSession[], first: string | undefined): Layout {
  const known = new Set(sessions.map((session) => session.id));
  const opening = first ?? sessions[0]?.id ?? null;
  const kept = remembered(workspace);
  if (kept === null) return layoutOf(opening);
  const layout = keepSessions(kept, known);
  const shown = layout.tabs.flatMap((tab) => leaves(tab.root));
  if (shown.every((pane) => pane.sessionId === null)) return layoutOf(opening);
  return first === undefined ? layout : show(layout, first);
}

/** Bring a session's pane to the front; in a tab of its own where it has none. */
function show(layout: Layout, sessionId: string): Layout {
  const panes = layout.tabs.flatMap((tab) => leaves(tab.root));
  const pane = panes.find((one) => one.sessionId === sessionId);
  return pane === undefined ? addTab(layout, leaf(sessionId)) : focusPane(layout, pane.id);
}

/** The terminals of a workspace: tabs and splits, remembered. Give it a `key` of the workspace. */
export function TerminalPanes({
  workspace,
  sessions,
  first,
  onCreate,
  onActive,
  ...view
}: TerminalPanesProps) {
  const [layout, setLayout] = useState(() => begin(workspace, sessions, first));
  const [titles, setTitles] = useState<Readonly<Record<string, string>>>({});
  const root = useRef<HTMLDivElement>(null);
  const terminals = useRef(new Map<string, LiveTerminal>());
  const tab = activeTab(layout);
  const focused = leaves(tab?.root ?? leaf(null)).find((pane) => pane.id === tab?.focused);
  const byId = new Map(sessions.map((session) => [session.id, session]));

  useEffect(() => remember(workspace, layout), [workspace, layout]);
  const active = focused?.sessionId ?? null;
  const told = useRef(onActive);
  useEffect(() => {
    told.current = onActive;
  });
  useEffect(() => told.current?.(active), [active]);
  // Not while rendering: React loses such a change where another one waits to be done over.
  useLayoutEffect(() => {
    // eslint-disable-next-line react-hooks/set-state-in-effect
    if (first !== undefined) setLayout((before) => show(before, first));
  }, [first]);

  const nameOf = (pane: Leaf | undefined): string => {
    if (pane === undefined || pane.sessionId === null) return 'New pane';
    return byId.get(pane.sessionId)?.name ?? 'Session';
  };
  const focusElement = (id: string) => {
    const pane = root.current?.querySelector(`[data-pane="${CSS.escape(id)}"]`);
    pane?.querySelector<HTMLElement>('.xterm-helper-textarea, button')?.focus();
  };
  const goTo = (id: string) => {
    setLayout((before) => focusPane(before, id));
    focusElement(id);
  };
  const command = (name: PaneCommand) => {
    switch (name) {
      case 'split-right':
      case 'split-down':
        setLayout((before) => split(before, name === 'split-right' ? 'right' : 'down', leaf(null)));
        return;
      case 'zoom':
        setLayout(toggleZoom);
        return;
      default: {
        if (tab === undefined) return;
        const next = neighbour(tab.root, tab.focused, name.slice('focus-'.length) as Direction);
        if (next !== null) goTo(next);
      }
    }
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const use = keyUse(event, platform);
    if (use.use !== 'panes') return;
    event.preventDefault();
    event.stopPropagation();
    command(use.command);
  };
  const create = async (paneId: string) => {
    const made = await onCreate?.();
    if (made) setLayout((before) => fill(before, paneId, made.id));
  };

  const placed = tab === undefined ? null : place(tab.root);
  return (
    // Chords of every pane are listened to in one place.
    // eslint-disable-next-line jsx-a11y/no-static-element-interactions
    <div ref={root} className="flex size-full min-h-0 min-w-0 flex-col" onKeyDown={onKeyDown}>
      <div className="flex h-9 shrink-0 items-center gap-1 border-b border-line bg-surface px-1.5 pointer-coarse:h-12">
        <TabList
          tabs={layout.tabs}
          active={tab?.id}
          nameOf={(one) => {
            const pane = leaves(one.root).find((leafOf) => leafOf.id === one.focused);
            return { name: nameOf(pane), title: titles[pane?.id ?? ''] ?? '' };
          }}
          onSelect={(id) => {
            const selected = layout.tabs.find((one) => one.id === id);
            setLayout((before) => ({ ...before, active: id }));
            if (selected !== undefined) requestAnimationFrame(() => focusElement(selected.focused));
          }}
          onClose={(id) => setLayout((before) => closeTab(before, id))}
        />
        <IconButton
          size="sm"
          label="New tab"
          icon={Plus}
          onClick={() => setLayout((one) => addTab(one, leaf(null)))}
        />
        <div className="ml-auto flex items-center">
          <div className="flex items-center max-md:hidden">
            <IconButton
              size="sm"
              label="Split right (Ctrl+Shift+D)"
              icon={Columns2}
              onClick={() => command('split-right')}
            />
            <IconButton
              size="sm"
              label="Split down (Ctrl+Shift+E)"
              icon={Rows2}
              onClick={() => command('split-down')}
            />
            {tab?.root.kind === 'split' && (
              <IconButton
                size="sm"
                label={tab.zoomed ? 'Show all panes (Ctrl+Shift+Z)' : 'Zoom this pane (Ctrl+Shift+Z)'}
                icon={tab.zoomed ? Minimize2 : Maximize2}
                onClick={() => command('zoom')}
              />
            )}
          </div>
          {active !== null && (
            <TerminalMenu name={nameOf(focused)} terminal={() => terminals.current.get(tab?.focused ?? '')} />
          )}
        </div>
      </div>
      <div className="relative min-h-0 flex-1">
        {/* All panes lie side by side in one list, so that none is made anew when the tree changes. */}
        {layout.tabs.flatMap((one) => {
          const boxes = place(one.root).panes;
          return leaves(one.root).map((pane) => {
            const shown = one.id === tab?.id && (!one.zoomed || pane.id === one.focused);
            const many = one.root.kind === 'split';
            return (
              <Pane
                key={pane.id}
                pane={pane}
                box={one.zoomed ? WHOLE : (boxes.get(pane.id) ?? WHOLE)}
                shown={shown}
                marked={many && !one.zoomed && pane.id === one.focused}
                name={nameOf(pane)}
                onClose={many ? () => setLayout((before) => closePane(before, pane.id)) : undefined}
                onFocus={() => setLayout((before) => focusPane(before, pane.id))}
              >
                {pane.sessionId === null ? (
                  <Chooser
                    sessions={sessions}
                    onChoose={(id) => setLayout((before) => fill(before, pane.id, id))}
                    onCreate={onCreate === undefined ? undefined : () => create(pane.id)}
                  />
                ) : (
                  <TerminalView
                    {...view}
                    key={pane.sessionId}
                    sessionId={pane.sessionId}
                    environmentId={byId.get(pane.sessionId)?.environmentId ?? ''}
                    label={`Terminal: ${nameOf(pane)}`}
                    autoFocus={pane.id === focused?.id}
                    onLive={(live) => {
                      if (live === null) terminals.current.delete(pane.id);
                      else terminals.current.set(pane.id, live);
                    }}
                    onTitle={(title) => setTitles((before) => ({ ...before, [pane.id]: title }))}
                  />
                )}
              </Pane>
            );
          });
        })}
        {tab !== undefined &&
          !tab.zoomed &&
          placed?.dividers.map((divider) => (
            <DividerLine
              key={divider.split.id}
              divider={divider}
              onRatio={(ratio) => setLayout((before) => setRatio(before, divider.split.id, ratio))}
            />
          ))}
      </div>
    </div>
  );
}

/** A menu that closes gives the focus to its button; what wants the focus has to come after that. */
const AFTER_MENU_MS = 50;

/** What can be done with the terminal in use without a keyboard. */
function TerminalMenu({ name, terminal }: { name: string; terminal: () => LiveTerminal | undefined }) {
  const later = (act: (live: LiveTerminal) => void) =>
    window.setTimeout(() => {
      const live = terminal();
      if (live !== undefined) act(live);
    }, AFTER_MENU_MS);
  const atOnce = (act: (live: LiveTerminal) => void) => () => {
    const live = terminal();
    if (live !== undefined) act(live);
    later((one) => one.focus());
  };
  return (
    <DropdownMenu
      items={[
        { label: 'Find…', icon: Search, onSelect: () => void later((live) => live.startFinding()) },
        { label: 'Copy all output', icon: Copy, onSelect: atOnce((live) => live.copyOutput()) },
        { label: 'Save all output', icon: Download, onSelect: atOnce((live) => live.saveOutput(name)) },
        { kind: 'separator' },
        { label: 'Larger text', icon: AArrowUp, onSelect: atOnce(() => stepFont(1)) },
        { label: 'Smaller text', icon: AArrowDown, onSelect: atOnce(() => stepFont(-1)) },
      ]}
    >
      <IconButton size="sm" label="More about this terminal" icon={EllipsisVertical} />
    </DropdownMenu>
  );
}

const percent = (box: Box) => ({
  left: `${box.left}%`,
  top: `${box.top}%`,
  width: `${box.width}%`,
  height: `${box.height}%`,
});

function Pane({
  pane,
  box,
  shown,
  marked,
  name,
  onClose,
  onFocus,
  children,
}: {
  pane: Leaf;
  box: Box;
  shown: boolean;
  marked: boolean;
  name: string;
  onClose: (() => void) | undefined;
  onFocus: () => void;
  children: ReactNode;
}) {
  return (
    // Only notes where the focus is.
    // eslint-disable-next-line jsx-a11y/no-static-element-interactions
    <div
      data-pane={pane.id}
      className={cn('group absolute overflow-hidden', !shown && 'hidden')}
      style={percent(box)}
      onFocus={onFocus}
    >
      {children}
      {marked && <div aria-hidden className="pointer-events-none absolute inset-0 border border-ring" />}
      {onClose !== undefined && (
        <div className="absolute top-1 right-1 opacity-0 group-focus-within:opacity-100 group-hover:opacity-100 pointer-coarse:opacity-100">
          <IconButton
            size="sm"
            label={`Close the pane ${name}`}
            icon={X}
            onClick={onClose}
            className="bg-raised"
          />
        </div>
      )}
    </div>
  );
}

function TabList({
  tabs,
  active,
  nameOf,
  onSelect,
  onClose,
}: {
  tabs: readonly Tab[];
  active: string | undefined;
  nameOf: (tab: Tab) => { name: string; title: string };
  onSelect: (id: string) => void;
  onClose: (id: string) => void;
}) {
  const onKeyDown = (event: KeyboardEvent) => {
    const at = tabs.findIndex((tab) => tab.id === active);
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    const next = tabs[(at + step + tabs.length) % tabs.length];
    event.preventDefault();
    if (next !== undefined) onSelect(next.id);
  };
  return (
    <div
      role="group"
      aria-label="Terminal tabs"
      className="flex min-w-0 items-center gap-0.5 overflow-x-auto [scrollbar-width:none]"
    >
      {tabs.map((tab) => {
        const { name, title } = nameOf(tab);
        const selected = tab.id === active;
        const count = leaves(tab.root).length;
        return (
          <div
            key={tab.id}
            className={cn(
              'flex h-7 max-w-56 min-w-0 shrink-0 items-center rounded-md text-sm pointer-coarse:h-11',
              selected ? 'bg-active text-fg' : 'text-fg-2 hover:bg-hover',
            )}
          >
            <button
              type="button"
              aria-pressed={selected}
              title={title || undefined}
              className="flex h-full min-w-0 items-center gap-1.5 rounded-md pr-1 pl-2 focus-inset"
              onClick={() => onSelect(tab.id)}
              onKeyDown={onKeyDown}
            >
              <SquareTerminal aria-hidden className="size-3.5 shrink-0" />
              <span className="truncate">{name}</span>
              {count > 1 && <span className="text-xs text-fg-3">{count}</span>}
            </button>
            {tabs.length > 1 && (
              <button
                type="button"
                aria-label={`Close the tab ${name}`}
                className="mr-0.5 flex size-6 items-center justify-center rounded-sm text-fg-3 hover:bg-hover hover:text-fg focus-inset pointer-coarse:size-11"
                onClick={() => onClose(tab.id)}
              >
                <X aria-hidden className="size-3.5" />
              </button>
            )}
          </div>
        );
      })}
    </div>
  );
}

function Chooser({
  sessions,
  onChoose,
  onCreate,
}: {
  sessions: readonly PaneSession[];
  onChoose: (id: string) => void;
  onCreate: (() => Promise<void>) | undefined;
}) {
  const [busy, setBusy] = useState(false);
  const first = useRef<HTMLDivElement>(null);
  useEffect(() => first.current?.querySelector('button')?.focus(), []);
  return (
    <div
      ref={first}
      className="flex size-full flex-col items-center justify-center gap-3 overflow-auto bg-canvas p-4"
    >
      <p className="text-sm text-fg-2">What should this pane show?</p>
      <ul className="flex w-full max-w-72 flex-col gap-1">
        {sessions.map((session) => (
          <li key={session.id}>
            <Button
              variant="ghost"
              icon={SquareTerminal}
              className="w-full justify-start"
              onClick={() => onChoose(session.id)}
            >
              <span className="truncate">{session.name}</span>
            </Button>
          </li>
        ))}
      </ul>
      {onCreate !== undefined && (
        <Button
          icon={Plus}
          busy={busy}
          onClick={() => {
            setBusy(true);
            void onCreate().finally(() => setBusy(false));
          }}
        >
          New session
        </Button>
      )}
    </div>
  );
}

const STEP = 0.02;

function DividerLine({ divider, onRatio }: { divider: Divider; onRatio: (ratio: number) => void }) {
  const { split: parted, box, whole } = divider;
  const across = parted.direction === 'right';
  const onKeyDown = (event: KeyboardEvent) => {
    const [less, more] = across ? ['ArrowLeft', 'ArrowRight'] : ['ArrowUp', 'ArrowDown'];
    if (event.ctrlKey || event.metaKey) return;
    if (event.key === less) onRatio(parted.ratio - STEP);
    else if (event.key === more) onRatio(parted.ratio + STEP);
    else if (event.key === 'Enter') onRatio(0.5);
    else return;
    event.preventDefault();
  };
  const onPointerMove = (event: PointerEvent<HTMLElement>) => {
    const room = event.currentTarget.parentElement?.getBoundingClientRect();
    if (room === undefined || !event.currentTarget.hasPointerCapture(event.pointerId)) return;
    const at = across ? (event.clientX - room.left) / room.width : (event.clientY - room.top) / room.height;
    const [start, length] = across ? [whole.left, whole.width] : [whole.top, whole.height];
    onRatio((at * 100 - start) / length);
  };
  return (
    // A focusable separator with a value is a widget of its own in ARIA.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-element-interactions
    <div
      role="separator"
      // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
      tabIndex={0}
      aria-label="Between two panes"
      aria-orientation={across ? 'vertical' : 'horizontal'}
      aria-valuenow={Math.round(parted.ratio * 100)}
      aria-valuemin={10}
      aria-valuemax={90}
      onKeyDown={onKeyDown}
      onDoubleClick={() => onRatio(0.5)}
      onPointerDown={(event) => event.currentTarget.setPointerCapture(event.pointerId)}
      onPointerMove={onPointerMove}
      className={cn(
        'absolute z-10 touch-none bg-line hover:bg-ring focus-visible:bg-ring after:absolute',
        across
          ? '-ml-px w-0.5! cursor-col-resize after:inset-y-0 after:-left-1.5 after:w-3.5 pointer-coarse:after:-left-4 pointer-coarse:after:w-8'
          : '-mt-px h-0.5! cursor-row-resize after:inset-x-0 after:-top-1.5 after:h-3.5 pointer-coarse:after:-top-4 pointer-coarse:after:h-8',
      )}
      style={percent(box)}
    />
  );
}
