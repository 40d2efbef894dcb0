import {
  Bot,
  Container,
  House,
  Keyboard,
  LogOut,
  Moon,
  PanelLeft,
  Plus,
  Search,
  Settings,
  Sparkles,
} from 'lucide-react';
import { lazy, Suspense, useEffect, useRef, useState } from 'react';
import { Outlet, useMatch, useNavigate } from 'react-router';
import { useEnvironments } from '@/api/queries';
import { logout } from '@/auth/session';
import { useSettingsCommands } from '@/screens/settings/parts';
import { IconButton } from '@/ui/button';
import { Announcements } from './announce';
import { setAppearance, shownTheme } from './appearance';
import { AttentionContext, useAttention, useWaiting } from './attention';
import { BottomTabs } from './bottom-tabs';
import { useCommands, type Command } from './commands';
import { ConnectionBanner } from './connection';
import { useCreateDialog, useTaskDialog } from './create';
import { listenToKeys, usePendingKeys } from './keys/listen';
import { CommandKeys, Keys } from './keys/shown';
import { Logo } from './logo';
import { TopbarContext } from './page';
import { Sidebar } from './sidebar';
import { livingSessions, neighbour } from './status';
import { isBoolean, useStored } from './stored';

const loadPalette = () => import('./palette');
const loadKeys = () => import('./keys/dialog');
const loadCreate = () => import('@/screens/environments/create');
const loadTask = () => import('@/screens/task');
const Palette = lazy(loadPalette);
const KeysDialog = lazy(loadKeys);
const CreateEnvironment = lazy(loadCreate);
const NewTask = lazy(loadTask);

/** Fetches what keys open right after the first screen, so that letters typed behind a key are not lost. */
function fetchOverlays(): void {
  for (const load of [loadTask, loadCreate, loadPalette, loadKeys]) load().catch(() => undefined);
}

type Overlay = 'palette' | 'commands' | 'keys' | undefined;

/** The frame round all screens of a signed-in person. */
export function Shell() {
  return (
    <AttentionContext value={useWaiting()}>
      <Frame />
      <Announcements />
    </AttentionContext>
  );
}

function Frame() {
  const [collapsed, setCollapsed] = useStored('sidebar.collapsed', false, isBoolean);
  const [overlay, setOverlay] = useState<Overlay>();
  const [trail, setTrail] = useState<HTMLElement | null>(null);
  const [actions, setActions] = useState<HTMLElement | null>(null);
  const create = useCreateDialog();
  const task = useTaskDialog();
  // What was begun goes on when its dialog is closed.
  const [taskBegun, setTaskBegun] = useState(false);
  const toggle = () => setCollapsed(!collapsed);
  useEffect(listenToKeys, []);
  useEffect(fetchOverlays, []);
  useCommands(usePageCommands(toggle, setOverlay));
  useCommands(useSettingsCommands());

  return (
    <TopbarContext value={{ trail, actions }}>
      <a
        href="#main"
        className="sr-only z-50 rounded-md bg-accent px-3 py-2 text-on-accent focus:not-sr-only focus:fixed focus:top-2 focus:left-2"
      >
        Skip to the content
      </a>
      <div className="flex h-dvh overflow-hidden bg-canvas">
        <Sidebar collapsed={collapsed} onToggle={toggle} />
        <div className="flex min-w-0 flex-1 flex-col">
          <ConnectionBanner />
          <header className="flex h-(--topbar-height) shrink-0 items-center gap-2 border-b border-line bg-surface px-4 md:px-6">
            <Logo className="size-6 shrink-0 md:hidden" />
            <div ref={setTrail} className="min-w-0 flex-1" />
            <div ref={setActions} className="flex shrink-0 items-center gap-2" />
            <IconButton
              icon={Search}
              label="Search and commands"
              shortcut={<CommandKeys id="palette.open" />}
              onClick={() => setOverlay('palette')}
              className="-mr-2 md:hidden"
            />
          </header>
          <main id="main" tabIndex={-1} className="flex min-h-0 flex-1 flex-col bg-surface">
            <Outlet />
          </main>
          <BottomTabs />
        </div>
      </div>
      <PendingKeys />
      <Suspense fallback={<OverlayComing />}>
        {(overlay === 'palette' || overlay === 'commands') && (
          <Palette commandsOnly={overlay === 'commands'} onClose={() => setOverlay(undefined)} />
        )}
        {overlay === 'keys' && <KeysDialog onClose={() => setOverlay(undefined)} />}
        {create.open && <CreateEnvironment onClose={create.hide} />}
        {(task.open || taskBegun) && (
          <NewTask open={task.open} onShow={task.show} onClose={task.hide} onBusy={setTaskBegun} />
        )}
      </Suspense>
    </TopbarContext>
  );
}

/** Keeps the page's keys still until the overlay is there to take them. */
function OverlayComing() {
  return <div role="dialog" aria-label="Loading" data-state="open" className="sr-only" />;
}

function PendingKeys() {
  const chords = usePendingKeys();
  if (!chords) return null;
  return (
    <div
      aria-hidden
      className="fixed bottom-4 left-1/2 z-50 -translate-x-1/2 rounded-md border border-line bg-raised px-2 py-1 shadow-md"
    >
      <Keys keys={chords.join(' ')} /> <span className="text-xs text-fg-3">…</span>
    </div>
  );
}

function usePageCommands(toggleSidebar: () => void, show: (overlay: Overlay) => void): Command[] {
  const navigate = useNavigate();
  const create = useCreateDialog();
  const task = useTaskDialog();
  const go = (to: string) => () => void navigate(to);
  const walk = useSessionWalk();
  const waiting = useAttention();
  const lastWaiting = useRef<string>(undefined);
  const nextWaiting = () => {
    const id = neighbour(
      waiting.map((one) => one.id),
      lastWaiting.current,
      1,
    );
    const next = waiting.find((one) => one.id === id);
    lastWaiting.current = id;
    if (next) void navigate(next.to);
  };
  return [
    {
      id: 'palette.open',
      title: 'Search and commands',
      group: 'General',
      keys: 'Mod+K',
      icon: Search,
      keysOnly: true,
      run: () => show('palette'),
    },
    {
      id: 'palette.commands',
      title: 'All commands',
      group: 'General',
      keys: 'Mod+Shift+P',
      keysOnly: true,
      run: () => show('commands'),
    },
    {
      id: 'keys.show',
      title: 'Keyboard shortcuts',
      group: 'General',
      keys: '?',
      icon: Keyboard,
      keywords: 'help keys bindings',
      run: () => show('keys'),
    },
    {
      id: 'view.sidebar',
      title: 'Show or hide the sidebar',
      group: 'General',
      keys: 'Mod+B',
      icon: PanelLeft,
      run: toggleSidebar,
    },
    {
      id: 'view.theme',
      title: 'Switch between light and dark',
      group: 'General',
      icon: Moon,
      keywords: 'theme appearance',
      run: () => setAppearance({ theme: shownTheme() === 'dark' ? 'light' : 'dark' }),
    },
    {
      id: 'account.logout',
      title: 'Sign out',
      group: 'General',
      icon: LogOut,
      keywords: 'logout',
      run: logout,
    },
    { id: 'go.home', title: 'Go to home', group: 'Go to', keys: 'g h', icon: House, run: go('/') },
    {
      id: 'go.environments',
      title: 'Go to environments',
      group: 'Go to',
      keys: 'g e',
      icon: Container,
      run: go('/envs'),
    },
    { id: 'go.agents', title: 'Go to agents', group: 'Go to', keys: 'g a', icon: Bot, run: go('/agents') },
    {
      id: 'go.settings',
      title: 'Go to settings',
      group: 'Go to',
      keys: 'g ,',
      icon: Settings,
      run: go('/settings'),
    },
    {
      id: 'attention.next',
      title: 'Go to the next that needs you',
      group: 'Go to',
      keys: 'Mod+Shift+A',
      enabled: waiting.length > 0,
      run: nextWaiting,
    },
    {
      id: 'session.next',
      title: 'Go to the next session',
      group: 'Go to',
      keys: 'Mod+Shift+J',
      enabled: walk.any,
      run: () => walk.go(1),
    },
    {
      id: 'session.previous',
      title: 'Go to the previous session',
      group: 'Go to',
      keys: 'Mod+Shift+K',
      enabled: walk.any,
      run: () => walk.go(-1),
    },
    {
      id: 'task.new',
      title: 'New task for an agent',
      group: 'Create',
      keys: 't',
      icon: Sparkles,
      keywords: 'prompt agent start run session',
      run: task.show,
    },
    {
      id: 'environment.new',
      title: 'New environment',
      group: 'Create',
      keys: 'c',
      icon: Plus,
      keywords: 'create add',
      run: create.show,
    },
  ];
}

function useSessionWalk(): { any: boolean; go: (by: 1 | -1) => void } {
  const navigate = useNavigate();
  const current = useMatch('/s/:session/*')?.params.session;
  const { data } = useEnvironments();
  const ids = livingSessions(data ?? []).map((one) => one.id);
  return {
    any: ids.length > 0,
    go: (by) => {
      const id = neighbour(ids, current, by);
      if (id !== undefined) void navigate(`/s/${id}`);
    },
  };
}
